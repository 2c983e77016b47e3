# Finds the three OpenCV libraries that ringlet uses. Debian keeps OpenCVConfig.cmake in libopencv-dev,
# which pulls in every OpenCV module; the small -dev packages of these three have none.
#
#   OpenCVImage_FOUND, target OpenCVImage::OpenCVImage

find_path(OpenCVImage_INCLUDE_DIR opencv2/imgcodecs.hpp PATH_SUFFIXES opencv4)
set(_opencv_variables)
foreach(part core imgproc imgcodecs)
  find_library(OpenCVImage_${part}_LIBRARY opencv_${part})
  list(APPEND _opencv_variables OpenCVImage_${part}_LIBRARY)
endforeach()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(OpenCVImage REQUIRED_VARS ${_opencv_variables}
                                  OpenCVImage_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "Install libopencv-imgcodecs-dev and libopencv-imgproc-dev.")

if(OpenCVImage_FOUND AND NOT TARGET OpenCVImage::OpenCVImage)
  add_library(OpenCVImage::OpenCVImage INTERFACE IMPORTED GLOBAL)
  target_include_directories(OpenCVImage::OpenCVImage SYSTEM INTERFACE "${OpenCVImage_INCLUDE_DIR}")
  foreach(part imgcodecs imgproc core)
    target_link_libraries(OpenCVImage::OpenCVImage INTERFACE "${OpenCVImage_${part}_LIBRARY}")
  endforeach()
endif()
mark_as_advanced(OpenCVImage_INCLUDE_DIR ${_opencv_variables})

# ringlet_layer(FOLDER LAYERS...): the library ringlet_FOLDER (in other projects ringlet::FOLDER) of
# the folder's sources, linked with the libraries of the layers below it.

# What is precompiled for all layers and programs, and needs a target of its own to be made by.
add_library(ringlet_precompiled OBJECT ${PROJECT_SOURCE_DIR}/ringlet/precompiled.cpp)
ringlet_compile_options(ringlet_precompiled)
target_link_libraries(ringlet_precompiled PRIVATE LibTorch::cpu nlohmann_json::nlohmann_json)
target_precompile_headers(ringlet_precompiled PRIVATE ${PROJECT_SOURCE_DIR}/ringlet/precompiled.h)

set(RINGLET_LAYER_TARGETS)
macro(ringlet_layer folder)
  file(GLOB_RECURSE _sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${folder}/*.cpp)
  add_library(ringlet_${folder} STATIC ${_sources})
  add_library(ringlet::${folder} ALIAS ringlet_${folder})
  set_target_properties(ringlet_${folder} PROPERTIES EXPORT_NAME ${folder})
  ringlet_compile_options(ringlet_${folder})
  target_precompile_headers(ringlet_${folder} REUSE_FROM ringlet_precompiled)
  # Where the precompiled header's includes are: clang-tidy opens them.
  target_include_directories(ringlet_${folder} SYSTEM PRIVATE
                             $<TARGET_PROPERTY:LibTorch::cpu,INTERFACE_INCLUDE_DIRECTORIES>)
  target_include_directories(ringlet_${folder} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
                                                      $<BUILD_INTERFACE:${PROJECT_BINARY_DIR}/generated>
                                                      $<INSTALL_INTERFACE:include>)
  foreach(_below ${ARGN})
    target_link_libraries(ringlet_${folder} PUBLIC ringlet_${_below})
  endforeach()
  list(APPEND RINGLET_LAYER_TARGETS ringlet_${folder})
endmacro()

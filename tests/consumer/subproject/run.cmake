# ctest: builds a project that contains ringlet, as FetchContent and add_subdirectory do, and runs it.
# One translation unit and no precompiled header: the cheapest build of the layer core.
#   cmake -DRINGLET=<source tree> -DSOURCE=<this folder> -DWORK=<scratch folder>
#         -DTORCH_INCLUDE=<LibTorch's headers> -DCOMPILER=<C++ compiler> -P run.cmake
file(REMOVE_RECURSE ${WORK})
cmake_path(GET TORCH_INCLUDE PARENT_PATH torch)
execute_process(COMMAND ${CMAKE_COMMAND} -G Ninja -S ${SOURCE} -B ${WORK} -DRINGLET=${RINGLET}
                        -DTORCH_DIR=${torch} -DCMAKE_CXX_COMPILER=${COMPILER}
                        -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON -DCMAKE_UNITY_BUILD=ON
                        -DCMAKE_UNITY_BUILD_BATCH_SIZE=0
                COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${CMAKE_COMMAND} --build ${WORK} --target subproject
                COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${WORK}/subproject OUTPUT_VARIABLE said COMMAND_ERROR_IS_FATAL ANY)
if(NOT said MATCHES "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
  message(FATAL_ERROR "the program printed: ${said}")
endif()

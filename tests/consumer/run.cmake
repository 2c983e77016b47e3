# ctest: installs ringlet into a fresh folder, builds the consumer against it, and runs it and the
# installed program from there.
#   cmake -DBUILD=<build folder> -DSOURCE=<this folder> -DWORK=<scratch folder> -P run.cmake
function(run)
  execute_process(COMMAND ${ARGV} RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "failed (${status}): ${ARGV}")
  endif()
endfunction()

file(REMOVE_RECURSE ${WORK})
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/prefix)
run(${CMAKE_COMMAND} -G Ninja -S ${SOURCE} -B ${WORK}/build -DCMAKE_PREFIX_PATH=${WORK}/prefix
    -DCMAKE_BUILD_TYPE=Release)
run(${CMAKE_COMMAND} --build ${WORK}/build)
run(${BUILD}/bin/ringlet_make_tiny_checkpoint ${WORK}/model)
run(${WORK}/build/consumer ${WORK}/model ${WORK}/picture.png)
run(${CMAKE_COMMAND} -E env --unset=LD_LIBRARY_PATH ${WORK}/prefix/bin/ringlet inspect ${WORK}/model)
run(${CMAKE_COMMAND} -E env --unset=LD_LIBRARY_PATH ${WORK}/prefix/bin/ringlet generate --model starter
    --prompt "red heart" --steps 1 --out ${WORK}/heart.png)
foreach(picture picture heart)
  if(NOT EXISTS ${WORK}/${picture}.png)
    message(FATAL_ERROR "${picture}.png was not written")
  endif()
endforeach()

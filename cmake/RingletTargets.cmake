# Compiler settings that every target of this project shares.

function(ringlet_compile_options target)
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor
                                           $<$<BOOL:${RINGLET_WERROR}>:-Werror>)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # GCC 12 warns falsely inside std::string concatenation (GCC bug 105329 and relatives).
    target_compile_options(${target} PRIVATE -Wno-stringop-overflow -Wno-restrict -Wno-stringop-overread
                                             -Wno-array-bounds)
    # In a unity build sources are included, and their local types look like a header's.
    if(CMAKE_UNITY_BUILD)
      target_compile_options(${target} PRIVATE -Wno-subobject-linkage)
    endif()
  endif()
  # Messages name a source file, not the folder of the machine that built it.
  target_compile_options(${target} PRIVATE -fmacro-prefix-map=${PROJECT_SOURCE_DIR}/=
                         $<$<BOOL:${LibTorch_INCLUDE_DIR}>:-fmacro-prefix-map=${LibTorch_INCLUDE_DIR}/=>)
  # One precompiled header serves the library and the programs, so both need the same code model.
  target_compile_options(${target} PRIVATE -fPIC)
  if(RINGLET_SANITIZE MATCHES thread AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # The library's own fences, which ThreadSanitizer does not know; nothing here has any.
    target_compile_options(${target} PRIVATE -Wno-tsan)
  endif()
  if(RINGLET_SANITIZE)
    target_compile_definitions(${target} PRIVATE RINGLET_SANITIZED)
    target_compile_options(${target} PRIVATE -fsanitize=${RINGLET_SANITIZE}
                                             -fno-omit-frame-pointer -fno-sanitize-recover=all)
    target_link_options(${target} PRIVATE -fsanitize=${RINGLET_SANITIZE})
  endif()
endfunction()

# ringlet_program(TARGET OUTPUT_NAME SOURCES...): a program of this project that links the library.
function(ringlet_program target output)
  add_executable(${target} ${ARGN})
  set_target_properties(${target} PROPERTIES OUTPUT_NAME ${output})
  ringlet_compile_options(${target})
  target_precompile_headers(${target} REUSE_FROM ringlet_precompiled)
  target_link_libraries(${target} PRIVATE ringlet)
endfunction()

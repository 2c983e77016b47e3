# Compiler settings that every target of this project shares.

function(ringlet_compile_options target)
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor
                                           -Werror)
  # One precompiled header serves the library and the programs, so both need the same code model.
  target_compile_options(${target} PRIVATE -fPIC)
  if(RINGLET_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${RINGLET_SANITIZE}
                                             -fno-omit-frame-pointer -fno-sanitize-recover=all)
    target_link_options(${target} PRIVATE -fsanitize=${RINGLET_SANITIZE})
  endif()
endfunction()

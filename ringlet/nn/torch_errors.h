// LibTorch's exceptions become ringlet's at the library's edge.
#pragma once

#include <exception>
#include <new>
#include <string>

#include "ringlet/core/error.h"

namespace ringlet::nn {

/// The Error for an exception of LibTorch or the standard library. Failed allocations become
/// out_of_memory, file system errors io; what the CUDA driver or the GPU refuses is unsupported, a
/// GPU that fails io; everything else is internal, with the first line of the text. `where`: a
/// Field or the name of a thing.
Error to_error(const std::exception& problem, const std::string& where);
Error to_error(const std::exception& problem, const Field& where);

/// Runs `action`; whatever leaves it is an Error.
template <class Where, class Action>
decltype(auto) with_ringlet_errors(const Where& where, Action&& action) {
  try {
    return action();
  } catch (const Error&) {
    throw;
  } catch (const std::exception& problem) {
    throw to_error(problem, where);
  }
}

}  // namespace ringlet::nn

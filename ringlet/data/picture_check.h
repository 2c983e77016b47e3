// Reads every picture of a run before it starts: damaged ones are found, exchanged ones noticed.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "ringlet/core/error.h"
#include "ringlet/io/image.h"

namespace ringlet::data {

struct PictureCheckOptions {
  int threads = 1;  ///< eight at most are used: each holds a picture
  /// More that a picture must fulfil, by its number; called in any order, in several threads.
  std::function<void(std::size_t number, const io::Image& image)> also = {};
  /// Called for each that cannot be used, in their order, when all have been read; their hashes are
  /// "". Without it they are errors.
  std::function<void(std::size_t number, const Error& problem)> bad = {};
  /// Called after each, one call at a time; returning false stops with Error(cancelled).
  std::function<bool(std::size_t done, std::size_t total)> progress = {};
};

/// Decodes all pictures and returns the SHA-256 of their files, in their order. Throws one Error of
/// the first one's kind that lists all that cannot be read (core/error_list.h); `where` names them
/// together.
std::vector<std::string> check_pictures(const std::vector<std::filesystem::path>& pictures,
                                        const std::string& where,
                                        const PictureCheckOptions& options);

}  // namespace ringlet::data

#include "ringlet/data/picture_check.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <optional>
#include <span>
#include <thread>

#include "ringlet/core/error.h"
#include "ringlet/core/error_list.h"
#include "ringlet/core/sha256.h"
#include "ringlet/io/image_decode.h"

namespace ringlet::data {
namespace {

namespace fs = std::filesystem;

/// Pictures that several threads take in turn.
class Check {
 public:
  Check(const std::vector<fs::path>& pictures, const PictureCheckOptions& options)
      : pictures_(pictures),
        options_(options),
        hashes_(pictures.size()),
        problems_(pictures.size()) {}

  void work() {
    for (std::size_t i = next_++; i < pictures_.size() && !stopped_; i = next_++) {
      try {
        read(i);
      } catch (const Error& error) {
        problems_[i] = error;
      } catch (...) {  // no memory, or a defect: the first one is passed on
        const std::lock_guard lock(mutex_);
        if (!failure_) failure_ = std::current_exception();
        stopped_ = true;
      }
      const std::lock_guard lock(mutex_);
      ++done_;
      if (options_.progress && !options_.progress(done_, pictures_.size())) stopped_ = true;
    }
  }

  std::vector<std::string> result(const std::string& where) {
    if (failure_) std::rethrow_exception(failure_);
    if (stopped_)
      throw Error(ErrorCode::cancelled, where, "stopped while the pictures were checked");
    std::vector<Error> found;
    for (std::size_t i = 0; i < problems_.size(); ++i) {
      if (!problems_[i]) continue;
      if (options_.bad)
        options_.bad(i, *problems_[i]);
      else
        found.push_back(*problems_[i]);
    }
    throw_together(found, where,
                   std::to_string(found.size()) + " of " + std::to_string(pictures_.size()) +
                       " pictures cannot be used");
    return std::move(hashes_);
  }

 private:
  void read(std::size_t i) {
    const io::ImageLimits limits;
    const std::vector<std::byte> bytes = io::read_image_bytes(pictures_[i], limits);
    const io::Image image = io::decode_image(bytes, pictures_[i].string(), limits);
    if (options_.also) options_.also(i, image);
    hashes_[i] = Sha256().update(bytes).hex();
  }

  const std::vector<fs::path>& pictures_;
  const PictureCheckOptions& options_;
  std::vector<std::string> hashes_;
  std::vector<std::optional<Error>> problems_;
  std::atomic<std::size_t> next_ = 0;
  std::atomic<bool> stopped_ = false;
  std::mutex mutex_;  ///< of what follows
  std::size_t done_ = 0;
  std::exception_ptr failure_;
};

}  // namespace

std::vector<std::string> check_pictures(const std::vector<fs::path>& pictures,
                                        const std::string& where,
                                        const PictureCheckOptions& options) {
  Check check(pictures, options);
  {
    std::vector<std::jthread> helpers;
    constexpr int kMost = 8;  // each holds a decoded picture or two
    const std::size_t threads =
        std::min(pictures.size(), static_cast<std::size_t>(std::clamp(options.threads, 1, kMost)));
    for (std::size_t i = 1; i < threads; ++i) helpers.emplace_back([&check] { check.work(); });
    check.work();
  }
  return check.result(where);
}

}  // namespace ringlet::data

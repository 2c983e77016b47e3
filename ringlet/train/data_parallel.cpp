#include "ringlet/train/data_parallel.h"

#include <charconv>

#include <ATen/ops/ne.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include "ringlet/core/sha256.h"
#include "ringlet/core/text.h"

namespace ringlet::train {
namespace {

/// A text as a number that sums of many ranks hold exactly.
double text_number(const std::string& text) {
  constexpr std::size_t kDigits = 9;
  constexpr int kHexadecimal = 16;
  const std::string hash = sha256_text(text).substr(0, kDigits);
  std::uint64_t number = 0;
  std::from_chars(hash.data(), hash.data() + hash.size(), number, kHexadecimal);
  return static_cast<double>(number);
}

}  // namespace

void DataParallel::alone(const std::function<void()>& work) const {
  if (count > 1 && while_others_wait)
    while_others_wait(work);
  else
    work();
}

void DataParallel::writer_first(at::Device device, const std::function<void()>& work) const {
  // A sum over all ranks is there when all of them have asked for it.
  const auto meet = [&] {
    std::vector<at::Tensor> none = {at::zeros({1}, device)};
    if (count > 1) reduce(none);
  };
  if (!writes()) meet();
  alone(work);
  if (writes()) meet();
}

/// The keys whose values are not the mean of all ranks, on any of them.
std::vector<std::string> DataParallel::differing(const Json& settings, at::Device device) const {
  const auto sum_of = [&](const std::vector<double>& numbers) {
    std::vector<at::Tensor> sum = {at::tensor(numbers, at::kDouble).to(device)};
    reduce(sum);
    return sum.front().cpu();
  };
  /// Which numbers any rank has otherwise.
  const auto others = [&](const std::vector<double>& own) {
    const at::Tensor mean = sum_of(own) / static_cast<double>(count);
    const at::Tensor here = (mean != at::tensor(own, at::kDouble)).to(at::kDouble);
    const at::Tensor anywhere =
        sum_of({here.const_data_ptr<double>(), here.const_data_ptr<double>() + here.numel()});
    return std::vector<double>(anywhere.const_data_ptr<double>(),
                               anywhere.const_data_ptr<double>() + anywhere.numel());
  };
  std::string keys;
  std::vector<double> values;
  for (const auto& [key, value] : settings.items()) {
    keys += key + "\n";
    values.push_back(text_number(value.dump()));
  }
  if (others({text_number(keys)}).front() > 0.0) return {"which settings there are"};
  const std::vector<double> found = others(values);
  std::vector<std::string> names;
  std::size_t i = 0;
  for (const auto& [key, value] : settings.items())
    if (found[i++] > 0.0) names.push_back(key);
  return names;
}

void DataParallel::check_same(const Json& settings, at::Device device) const {
  if (count == 1) return;
  const std::vector<std::string> names = differing(settings, device);
  if (!names.empty())
    throw Error(ErrorCode::mismatch, "ranks",
                "the " + std::to_string(count) + " processes differ in: " + join(names, "; "),
                "start all of them with the same options, on the same files");
}

}  // namespace ringlet::train

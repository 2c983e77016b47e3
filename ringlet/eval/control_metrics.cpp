#include "ringlet/eval/control_metrics.h"

#include <cmath>
#include <numeric>
#include <string>

#include "ringlet/core/error.h"

namespace ringlet::eval {
namespace {

std::string size_text(std::int64_t width, std::int64_t height) {
  return std::to_string(width) + "x" + std::to_string(height);
}

void check_sizes(std::int64_t width, std::int64_t height, std::int64_t other_width,
                 std::int64_t other_height) {
  if (width == other_width && height == other_height) return;
  throw Error(ErrorCode::mismatch, "evaluation",
              "a pair has the sizes " + size_text(width, height) + " and " +
                  size_text(other_width, other_height),
              "bring both to one size first, with `size=N`");
}

}  // namespace

EdgeAgreement edge_agreement(const io::Image& source, const io::Image& generated,
                             data::CannyThresholds thresholds) {
  check_sizes(source.width, source.height, generated.width, generated.height);
  const io::Image a = data::canny_edges(source, thresholds);
  const io::Image b = data::canny_edges(generated, thresholds);
  std::int64_t both = 0, one = 0;
  for (std::size_t i = 0; i < a.pixels.size(); i += 3) {
    const bool in_a = a.pixels[i] != 0, in_b = b.pixels[i] != 0;
    both += in_a && in_b ? 1 : 0;
    one += in_a != in_b ? 1 : 0;
  }
  if (both + one == 0) return {1.0, 1.0};
  const auto tp = static_cast<double>(both), wrong = static_cast<double>(one);
  return {tp / (tp + wrong), 2.0 * tp / (2.0 * tp + wrong)};
}

Confusion::Confusion(int classes, int ignored)
    : classes_(classes),
      ignored_(ignored),
      counts_(static_cast<std::size_t>(classes) * static_cast<std::size_t>(classes)) {}

void Confusion::add(const data::LabelMap& truth, const data::LabelMap& found) {
  check_sizes(truth.width, truth.height, found.width, found.height);
  for (std::size_t i = 0; i < truth.labels.size(); ++i) {
    if (truth.labels[i] == ignored_) continue;
    if (truth.labels[i] >= classes_ || found.labels[i] >= classes_)
      throw Error(ErrorCode::invalid_argument, "evaluation",
                  "a map has the label " +
                      std::to_string(std::max(truth.labels[i], found.labels[i])) + ", beyond " +
                      std::to_string(classes_) + " classes");
    ++at(truth.labels[i], found.labels[i]);
  }
}

Confusion& Confusion::operator+=(const Confusion& other) {
  if (other.classes_ != classes_)
    throw Error(ErrorCode::mismatch, "evaluation", "the two sets have different classes");
  for (std::size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
  return *this;
}

std::int64_t Confusion::pixels() const {
  return std::accumulate(counts_.begin(), counts_.end(), std::int64_t{0});
}

Confusion::Scores Confusion::scores() const {
  Scores scores;
  std::int64_t right = 0, all = 0;
  int present = 0, true_classes = 0;
  for (int c = 0; c < classes_; ++c) {
    std::int64_t row = 0, column = 0;
    for (int other = 0; other < classes_; ++other) {
      row += counts_[static_cast<std::size_t>(c * classes_ + other)];
      column += counts_[static_cast<std::size_t>(other * classes_ + c)];
    }
    const std::int64_t hit = counts_[static_cast<std::size_t>(c * classes_ + c)];
    right += hit;
    all += row;
    if (row + column - hit > 0) {
      scores.mean_iou += static_cast<double>(hit) / static_cast<double>(row + column - hit);
      ++present;
    }
    if (row > 0) {
      scores.mean_accuracy += static_cast<double>(hit) / static_cast<double>(row);
      ++true_classes;
    }
  }
  if (all == 0)
    throw Error(ErrorCode::invalid_argument, "evaluation", "no pixel has a label that counts");
  scores.mean_iou /= present;
  scores.mean_accuracy /= true_classes;
  scores.pixel_accuracy = static_cast<double>(right) / static_cast<double>(all);
  return scores;
}

double landmark_error(std::span<const data::Point> truth, std::span<const data::Point> found) {
  if (truth.size() != found.size())
    throw Error(ErrorCode::mismatch, "evaluation",
                std::to_string(found.size()) + " points were found where " +
                    std::to_string(truth.size()) + " are",
                "both must come from the same kind of detector");
  if (truth.empty()) throw Error(ErrorCode::invalid_argument, "evaluation", "there are no points");
  double sum = 0.0;
  for (std::size_t i = 0; i < truth.size(); ++i)
    sum += std::hypot(truth[i].x - found[i].x, truth[i].y - found[i].y);
  return sum / static_cast<double>(truth.size());
}

}  // namespace ringlet::eval

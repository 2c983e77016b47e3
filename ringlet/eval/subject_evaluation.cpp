#include "ringlet/eval/subject_evaluation.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <map>
#include <optional>

#include <ATen/ops/tensor.h>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"
#include "ringlet/data/picture_folder.h"
#include "ringlet/eval/feature_metrics.h"
#include "ringlet/io/image.h"

namespace ringlet::eval {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> pictures_in(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const data::Picture& picture : data::read_picture_folder(folder).pictures)
    files.push_back(picture.path);
  return files;
}

std::vector<fs::path> folders_in(const fs::path& folder) {
  if (!fs::is_directory(folder))
    throw Error(ErrorCode::not_found, folder.string(), "the folder does not exist");
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.is_directory()) folders.push_back(entry.path());
  std::ranges::sort(folders);
  return folders;
}

bool holds_pictures(const fs::path& folder) {
  return std::ranges::any_of(fs::directory_iterator(folder), [](const fs::directory_entry& entry) {
    static constexpr std::array kExtensions = {".png", ".jpg", ".jpeg", ".webp"};
    return std::ranges::find(kExtensions, entry.path().extension().string()) != kExtensions.end();
  });
}

/// The first line of the generation parameters, or of the text file.
std::string prompt_of(const fs::path& file) {
  std::string text;
  if (file.extension() == ".png") {
    const auto chunks = io::read_png_text(file);
    if (const auto found = chunks.find("parameters"); found != chunks.end()) text = found->second;
  }
  if (text.empty()) {
    std::ifstream beside(fs::path(file).replace_extension(".txt"));
    std::getline(beside, text);
  }
  return text.substr(0, text.find('\n'));
}

std::string without(std::string text, const std::string& token) {
  if (token.empty()) return text;
  const std::size_t place = text.find(token);
  if (place != std::string::npos) {
    text.erase(place, token.size());
    if (place < text.size() && text[place] == ' ') text.erase(place, 1);
  }
  return text;
}

at::Tensor features_of(const FeatureNetwork& network, const std::vector<fs::path>& files) {
  std::vector<io::Image> pictures;
  for (const fs::path& file : files) pictures.push_back(io::read_image(file));
  return network.features(pictures);
}

/// Rows of some of the pictures.
at::Tensor rows_of(const at::Tensor& features, const std::vector<std::int64_t>& rows) {
  return features.index_select(0, at::tensor(rows, at::kLong));
}

/// Rows of pictures of one subject and prompt.
std::map<std::string, std::vector<std::int64_t>> by_prompt(const std::vector<SubjectPicture>& all) {
  std::map<std::string, std::vector<std::int64_t>> groups;
  for (std::size_t i = 0; i < all.size(); ++i)
    groups[all[i].subject + ": " + all[i].prompt].push_back(static_cast<std::int64_t>(i));
  return groups;
}

bool has_one_subject(const std::vector<SubjectPicture>& all) {
  return std::ranges::all_of(
      all, [&](const SubjectPicture& one) { return one.subject == all.front().subject; });
}

/// What an interval's units are: subjects, or prompts where there is one subject.
std::string unit_of(const SubjectPicture& picture, bool one_subject) {
  return one_subject ? picture.prompt : picture.subject;
}

/// Evaluates one network's metrics.
class SubjectMetrics {
 public:
  SubjectMetrics(const std::vector<SubjectPicture>& generated,
                 const std::vector<RealPictures>& real, const FeatureNetwork& network)
      : generated_(generated), network_(network), one_subject_(real.size() == 1) {
    std::vector<fs::path> files;
    for (const SubjectPicture& picture : generated) files.push_back(picture.file);
    features_ = features_of(network, files);
    for (const RealPictures& subject : real)
      real_.emplace(subject.subject, features_of(network, subject.files));
  }

  Measured similarity(const std::string& name) const {
    std::vector<Sample> samples;
    for (std::size_t i = 0; i < generated_.size(); ++i) {
      const auto row = static_cast<std::int64_t>(i);
      const at::Tensor all = cosines(features_.narrow(0, row, 1), real_.at(generated_[i].subject));
      samples.push_back({generated_[i].id, unit(generated_[i]), all.mean().item<double>()});
    }
    return measured(name, true, std::move(samples));
  }

  Measured text_similarity(const std::string& name) const {
    std::vector<std::string> prompts;
    for (const SubjectPicture& picture : generated_) {
      if (picture.prompt.empty())
        throw Error(ErrorCode::not_found, picture.file.string(), "its prompt is not known",
                    "write it into a .txt file beside it, or generate it with ringlet");
      prompts.push_back(picture.prompt);
    }
    const at::Tensor all = paired_cosines(features_, network_.text_features(prompts));
    std::vector<Sample> samples;
    for (std::size_t i = 0; i < generated_.size(); ++i)
      samples.push_back({generated_[i].id, unit(generated_[i]),
                         all[static_cast<std::int64_t>(i)].item<double>()});
    return measured(name, true, std::move(samples));
  }

  /// Nothing where no prompt has two pictures.
  std::optional<Measured> diversity(const std::string& name) const {
    std::vector<Sample> samples;
    for (const auto& [group, rows] : by_prompt(generated_)) {
      if (rows.size() < 2) continue;
      const SubjectPicture& first = generated_[static_cast<std::size_t>(rows.front())];
      samples.push_back({group, unit(first), mean_pairwise_distance(rows_of(features_, rows))});
    }
    if (samples.empty()) return std::nullopt;
    return measured(name, true, std::move(samples));
  }

 private:
  std::string unit(const SubjectPicture& picture) const { return unit_of(picture, one_subject_); }

  const std::vector<SubjectPicture>& generated_;
  const FeatureNetwork& network_;
  bool one_subject_;
  at::Tensor features_;
  std::map<std::string, at::Tensor> real_;
};

std::string pooled_note(const Measured& metric) {
  double sum = 0.0;
  for (const Sample& sample : metric.samples) sum += sample.value;
  char text[160];
  std::snprintf(text, sizeof text, "%s pooled over all pictures, as OFT's code averages: %.4f",
                metric.name.c_str(), sum / static_cast<double>(metric.samples.size()));
  return text;
}

}  // namespace

std::pair<std::vector<SubjectPicture>, std::vector<RealPictures>> read_subjects(
    const fs::path& generated, const fs::path& reference, const std::string& token) {
  std::vector<SubjectPicture> pictures;
  std::vector<RealPictures> real;
  const auto add = [&](const std::string& subject, const fs::path& made, const fs::path& wanted) {
    real.push_back({subject, pictures_in(wanted)});
    for (const fs::path& file : pictures_in(made))
      pictures.push_back(
          {subject.empty() ? file.stem().string() : subject + "/" + file.stem().string(), subject,
           without(prompt_of(file), token), file});
  };
  const std::vector<fs::path> subjects = folders_in(generated);
  folders_in(reference);
  if (subjects.empty() || holds_pictures(reference)) {
    add("", generated, reference);
    return {std::move(pictures), std::move(real)};
  }
  for (const fs::path& subject : subjects) {
    const fs::path wanted = reference / subject.filename();
    if (!fs::is_directory(wanted))
      throw Error(ErrorCode::mismatch, subject.string(),
                  "there are no real pictures of the subject", "looked for " + wanted.string());
    add(subject.filename().string(), subject, wanted);
  }
  return {std::move(pictures), std::move(real)};
}

Evaluation evaluate_subjects(const std::vector<SubjectPicture>& generated,
                             const std::vector<RealPictures>& real,
                             const SubjectNetworks& networks) {
  if (networks.dino == nullptr && networks.clip == nullptr)
    throw Error(ErrorCode::invalid_argument, "--dino, --clip",
                "at least one network has to look at the pictures",
                "give a folder with config.json and model.safetensors, for example of "
                "facebook/dino-vits16 or openai/clip-vit-base-patch32");
  Evaluation evaluation;
  evaluation.kind = "subject";
  std::optional<Measured> diversity;
  const auto add = [&](const FeatureNetwork& network, const char* name) {
    const SubjectMetrics metrics(generated, real, network);
    evaluation.metrics.push_back(metrics.similarity(name));
    evaluation.notes.push_back(pooled_note(evaluation.metrics.back()));
    if (!diversity) diversity = metrics.diversity(std::string("DIV by ") + name);
    if (&network == networks.clip && network.reads_texts())
      evaluation.metrics.push_back(metrics.text_similarity("CLIP-T"));
    evaluation.settings.emplace_back(name, network.name());
  };
  if (networks.dino != nullptr) add(*networks.dino, "DINO");
  if (networks.clip != nullptr) add(*networks.clip, "CLIP-I");
  if (diversity) evaluation.metrics.push_back(*std::move(diversity));
  return evaluation;
}

std::optional<Measured> perceptual_diversity(const PerceptualDistance& distance,
                                             const std::vector<SubjectPicture>& generated) {
  const bool one_subject = has_one_subject(generated);
  std::vector<Sample> samples;
  for (const auto& [group, rows] : by_prompt(generated)) {
    if (rows.size() < 2) continue;
    std::vector<io::Image> pictures;
    for (const std::int64_t row : rows)
      pictures.push_back(io::read_image(generated[static_cast<std::size_t>(row)].file));
    double sum = 0.0;
    int pairs = 0;
    for (std::size_t i = 0; i < pictures.size(); ++i)
      for (std::size_t k = i + 1; k < pictures.size(); ++k, ++pairs)
        sum += distance(pictures[i], pictures[k]);
    const SubjectPicture& first = generated[static_cast<std::size_t>(rows.front())];
    samples.push_back({group, unit_of(first, one_subject), sum / pairs});
  }
  if (samples.empty()) return std::nullopt;
  return measured("DIV by " + distance.name(), true, std::move(samples));
}

Measured caption_accuracy(const FeatureNetwork& network,
                          const std::vector<SubjectPicture>& generated,
                          const std::vector<std::string>& captions) {
  const bool one_subject = has_one_subject(generated);
  std::vector<std::string> prompts;
  std::vector<fs::path> files;
  for (const SubjectPicture& picture : generated) {
    prompts.push_back(picture.prompt);
    files.push_back(picture.file);
  }
  const at::Tensor seen = features_of(network, files);
  const at::Tensor own = paired_cosines(seen, network.text_features(prompts));
  const at::Tensor others = cosines(seen, network.text_features(captions));
  std::vector<Sample> samples;
  for (std::size_t i = 0; i < generated.size(); ++i) {
    const auto row = static_cast<std::int64_t>(i);
    double nearest = -1.0;
    for (std::size_t k = 0; k < captions.size(); ++k)
      if (captions[k] != prompts[i])
        nearest = std::max(nearest, others[row][static_cast<std::int64_t>(k)].item<double>());
    samples.push_back({generated[i].id, unit_of(generated[i], one_subject),
                       own[row].item<double>() > nearest ? 1.0 : 0.0});
  }
  return measured("own prompt nearest", true, std::move(samples));
}

Measured prior_preservation(const FeatureNetwork& network, const std::vector<fs::path>& prior,
                            const std::vector<fs::path>& real) {
  const at::Tensor all = cosines(features_of(network, prior), features_of(network, real)).mean(1);
  std::vector<Sample> samples;
  for (std::size_t i = 0; i < prior.size(); ++i)
    samples.push_back({prior[i].stem().string(), prior[i].stem().string(),
                       all[static_cast<std::int64_t>(i)].item<double>()});
  return measured("PRES", false, std::move(samples));
}

Measured prior_drift(const FeatureNetwork& network, const fs::path& with, const fs::path& without) {
  std::map<std::string, fs::path> partners;
  for (const fs::path& file : pictures_in(without)) partners.emplace(file.stem().string(), file);
  std::vector<fs::path> first = pictures_in(with), second;
  for (const fs::path& file : first) {
    const auto partner = partners.find(file.stem().string());
    if (partner == partners.end())
      throw Error(ErrorCode::mismatch, file.string(), "has no partner in " + without.string(),
                  "both folders need the same prompts and seeds under the same names");
    second.push_back(partner->second);
  }
  const at::Tensor same = paired_cosines(features_of(network, first), features_of(network, second));
  std::vector<Sample> samples;
  for (std::size_t i = 0; i < first.size(); ++i)
    samples.push_back({first[i].stem().string(), first[i].stem().string(),
                       1.0 - same[static_cast<std::int64_t>(i)].item<double>()});
  return measured("prior drift", false, std::move(samples));
}

Evaluation evaluate_sets(const fs::path& generated, const fs::path& reference,
                         const FeatureNetwork& network) {
  const at::Tensor made = features_of(network, pictures_in(generated));
  const at::Tensor wanted = features_of(network, pictures_in(reference));
  constexpr int kResamples = 200;  // each one takes an eigendecomposition
  const auto interval = [&](const auto& distance) {
    return bootstrap(static_cast<std::size_t>(made.size(0)),
                     [&](const std::vector<std::size_t>& drawn) {
                       return distance(
                           rows_of(made, std::vector<std::int64_t>(drawn.begin(), drawn.end())),
                           wanted);
                     },
                     {.resamples = kResamples});
  };
  Evaluation evaluation;
  evaluation.kind = "set";
  evaluation.settings = {{"network", network.name()}};
  const auto add = [&](const std::string& name, const auto& distance) {
    evaluation.metrics.push_back(
        {name + " (" + network.name() + ")", false, interval(distance), {}});
  };
  add("Frechet distance", [](const auto& a, const auto& b) { return frechet_distance(a, b); });
  add("kernel distance",
      [](const auto& a, const auto& b) { return kernel_distance(a, b, {.subsets = 10}); });
  add("CMMD", [](const auto& a, const auto& b) { return clip_mean_discrepancy(a, b); });
  evaluation.notes = {
      "intervals are of drawing the generated pictures anew, in which repeats count as near ones: "
      "they lie above the distance itself",
      "numbers by other networks than " + network.name() + " do not compare"};
  return evaluation;
}

}  // namespace ringlet::eval

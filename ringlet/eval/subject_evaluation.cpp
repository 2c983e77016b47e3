#include "ringlet/eval/subject_evaluation.h"

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <map>
#include <optional>
#include <set>

#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>

#include "ringlet/core/error.h"
#include "ringlet/core/read_file.h"
#include "ringlet/core/text.h"
#include "ringlet/data/caption_file.h"
#include "ringlet/data/picture_folder.h"
#include "ringlet/eval/feature_metrics.h"
#include "ringlet/io/image.h"

namespace ringlet::eval {
namespace {

namespace fs = std::filesystem;

/// A picture's name within its folder, without extension: "snow/p00-s1".
std::string name_in(const fs::path& folder, const fs::path& file) {
  return fs::path(file).replace_extension().lexically_relative(folder).generic_string();
}

/// Pictures of a folder and its subfolders by name. Throws for two of one name.
std::map<std::string, fs::path> pictures_in(const fs::path& folder) {
  std::map<std::string, fs::path> files;
  for (const data::Picture& picture :
       data::read_pictures(folder, {.captions = data::Captions::ignored})) {
    const auto [other, is_new] = files.emplace(name_in(folder, picture.path), picture.path);
    if (!is_new)
      throw Error(ErrorCode::mismatch, picture.path.string(),
                  "has the name of " + other->second.filename().string(),
                  "keep one and remove the other");
  }
  return files;
}

std::vector<fs::path> files_of(const std::map<std::string, fs::path>& pictures) {
  std::vector<fs::path> files;
  for (const auto& [name, file] : pictures) files.push_back(file);
  return files;
}

std::set<std::string> folders_in(const fs::path& folder) {
  if (!fs::is_directory(folder))
    throw Error(ErrorCode::not_found, folder.string(), "the folder does not exist");
  std::set<std::string> folders;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.is_directory() && !data::is_of_other_program(entry.path()))
      folders.insert(entry.path().filename().string());
  return folders;
}

/// Throws for names of `wanted` that `there` lacks.
void need_partners(const std::set<std::string>& wanted, const std::set<std::string>& there,
                   const fs::path& folder, const char* what) {
  for (const std::string& name : wanted)
    if (!there.contains(name))
      throw Error(ErrorCode::mismatch, (folder / name).string(), what,
                  "both sides need the same names; remove from the other folder what should not be "
                  "measured");
}

/// The first line of the generation parameters, or of the text file.
std::string prompt_of(const fs::path& file) {
  std::string text;
  if (data::lower_extension(file) == ".png") {
    const auto chunks = io::read_png_text(file);
    if (const auto found = chunks.find("parameters"); found != chunks.end()) text = found->second;
  }
  if (const fs::path beside = fs::path(file).replace_extension(".txt");
      text.empty() && fs::exists(beside))
    text = data::read_caption(beside).text;
  return text.substr(0, text.find('\n'));
}

bool is_in_word(const std::string& text, std::size_t place) {
  if (place >= text.size()) return false;
  const auto c = static_cast<unsigned char>(text[place]);
  return std::isalnum(c) != 0 || c == '_' || c >= 0x80;
}

/// The text without the word, wherever it stands alone, and without the space that it leaves.
std::string without(std::string text, const std::string& token) {
  if (token.empty()) return text;
  for (std::size_t at = text.find(token); at != std::string::npos; at = text.find(token, at)) {
    const std::size_t end = at + token.size();
    if ((at > 0 && is_in_word(text, at - 1)) || is_in_word(text, end)) {
      at = end;
      continue;
    }
    const bool space_after = end < text.size() && text[end] == ' ';
    const bool space_before = !space_after && end == text.size() && at > 0 && text[at - 1] == ' ';
    if (space_before) --at;
    text.erase(at, token.size() + (space_after || space_before ? 1 : 0));
  }
  return text;
}

/// One picture is in memory at a time.
at::Tensor features_of(const FeatureNetwork& network, const std::vector<fs::path>& files) {
  std::vector<at::Tensor> rows;
  for (const fs::path& file : files) rows.push_back(network.features({io::read_image(file)}));
  return at::cat(rows);
}

/// Rows of some of the pictures.
at::Tensor rows_of(const at::Tensor& features, const std::vector<std::int64_t>& rows) {
  return features.index_select(0, at::tensor(rows, at::kLong));
}

/// Rows of pictures of one subject and prompt; those without a known prompt belong to none.
std::map<std::string, std::vector<std::int64_t>> by_prompt(const std::vector<SubjectPicture>& all) {
  std::map<std::string, std::vector<std::int64_t>> groups;
  for (std::size_t i = 0; i < all.size(); ++i)
    if (!all[i].prompt.empty())
      groups[all[i].subject + ": " + all[i].prompt].push_back(static_cast<std::int64_t>(i));
  return groups;
}

bool has_one_subject(const std::vector<SubjectPicture>& all) {
  return std::ranges::all_of(
      all, [&](const SubjectPicture& one) { return one.subject == all.front().subject; });
}

/// What an interval's units are: subjects, or prompts where there is one subject. Without a prompt
/// nothing is known to belong together.
std::string unit_of(const SubjectPicture& picture, bool one_subject) {
  if (!one_subject) return picture.subject;
  return picture.prompt.empty() ? picture.id : picture.prompt;
}

/// How many pictures have no known prompt, and what that means; nothing where all have one.
std::optional<std::string> note_on_prompts(const std::vector<SubjectPicture>& all,
                                           bool one_subject) {
  const auto unknown = std::ranges::count_if(
      all, [](const SubjectPicture& picture) { return picture.prompt.empty(); });
  if (unknown == 0) return std::nullopt;
  return "the prompt of " + std::to_string(unknown) + " of " + std::to_string(all.size()) +
         " pictures is not known (no parameters in the PNG, no .txt file beside it): " +
         (one_subject ? "each is a separate unit, and " : "") + "DIV skips them";
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

  /// The average over all pairs of a generated and a real picture, in words.
  std::string pooled_note(const Measured& similarity) const {
    double sum = 0.0, pairs = 0.0;
    for (std::size_t i = 0; i < generated_.size(); ++i) {
      const auto count = static_cast<double>(real_.at(generated_[i].subject).size(0));
      sum += count * similarity.samples[i].value;
      pairs += count;
    }
    char text[160];
    std::snprintf(text, sizeof text, "%s pooled over all pairs, as OFT's code averages: %.4f",
                  similarity.name.c_str(), sum / pairs);
    return text;
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

}  // namespace

std::pair<std::vector<SubjectPicture>, std::vector<RealPictures>> read_subjects(
    const fs::path& generated, const fs::path& reference, const std::string& token) {
  std::vector<SubjectPicture> pictures;
  std::vector<RealPictures> real;
  const auto add = [&](const std::string& subject, const fs::path& made, const fs::path& wanted) {
    real.push_back({subject, files_of(pictures_in(wanted))});
    for (const auto& [name, file] : pictures_in(made))
      pictures.push_back({subject.empty() ? name : subject + "/" + name, subject,
                          without(prompt_of(file), token), file});
  };
  const std::set<std::string> made = folders_in(generated), wanted = folders_in(reference);
  const bool made_flat = made.empty() || data::holds_pictures(generated);
  if (data::holds_pictures(reference) || (made_flat && wanted.size() < 2)) {
    add("", generated, reference);
    return {std::move(pictures), std::move(real)};
  }
  if (made_flat)
    throw Error(ErrorCode::mismatch, generated.string(),
                "its pictures are in no subject's folder, those of " + reference.string() + " are",
                "put them into a folder of the subject's name");
  need_partners(made, wanted, reference, "there are no real pictures of the subject");
  need_partners(wanted, made, generated, "there are no generated pictures of the subject");
  for (const std::string& subject : made) add(subject, generated / subject, reference / subject);
  return {std::move(pictures), std::move(real)};
}

std::vector<SubjectPicture> read_generated(const std::vector<fs::path>& files,
                                           const std::string& token) {
  std::vector<SubjectPicture> pictures;
  for (const fs::path& file : files)
    pictures.push_back({file.stem().string(), "", without(prompt_of(file), token), file});
  return pictures;
}

RealPictures read_real(const fs::path& reference) {
  const std::set<std::string> folders = folders_in(reference);
  if (folders.size() > 1 && !data::holds_pictures(reference))
    throw Error(ErrorCode::mismatch, reference.string(),
                "holds folders of " + std::to_string(folders.size()) + " subjects (" +
                    *folders.begin() + ", …), but pictures are made of one subject",
                "give the folder of the subject that `subject` names");
  return {"", files_of(pictures_in(reference))};
}

void check_networks(const SubjectNetworks& networks) {
  if (networks.dino == nullptr && networks.clip == nullptr)
    throw Error(ErrorCode::invalid_argument, "`dino`, `clip`",
                "at least one feature network is needed",
                "give a folder with config.json and model.safetensors, for example of "
                "facebook/dino-vits16 or openai/clip-vit-base-patch32");
}

Evaluation evaluate_subjects(const std::vector<SubjectPicture>& generated,
                             const std::vector<RealPictures>& real,
                             const SubjectNetworks& networks) {
  check_networks(networks);
  Evaluation evaluation;
  evaluation.kind = "subject";
  std::vector<fs::path> references;
  for (const RealPictures& subject : real)
    references.insert(references.end(), subject.files.begin(), subject.files.end());
  evaluation.protocol = {{"real pictures", hash_of_files(std::move(references))}};
  std::optional<Measured> diversity;
  const auto add = [&](const FeatureNetwork& network, const char* name) {
    const SubjectMetrics metrics(generated, real, network);
    evaluation.metrics.push_back(metrics.similarity(name));
    evaluation.notes.push_back(metrics.pooled_note(evaluation.metrics.back()));
    if (!diversity) diversity = metrics.diversity(std::string("DIV by ") + name);
    if (&network == networks.clip && network.reads_texts())
      evaluation.metrics.push_back(metrics.text_similarity("CLIP-T"));
    evaluation.protocol.emplace_back(name, network.identity());
  };
  if (networks.dino != nullptr) add(*networks.dino, "DINO");
  if (networks.clip != nullptr) add(*networks.clip, "CLIP-I");
  if (diversity) evaluation.metrics.push_back(*std::move(diversity));
  if (auto note = note_on_prompts(generated, real.size() == 1))
    evaluation.notes.push_back(*std::move(note));
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

NamedNetwork main_network(const SubjectNetworks& networks) {
  check_networks(networks);
  if (networks.dino != nullptr) return {"DINO", *networks.dino};
  return {"CLIP-I", *networks.clip};
}

Measured prior_preservation(const NamedNetwork& by, const fs::path& prior,
                            const std::vector<RealPictures>& real) {
  const bool one_subject = real.size() == 1;
  if (!one_subject) {
    std::set<std::string> subjects;
    for (const RealPictures& subject : real) subjects.insert(subject.subject);
    need_partners(subjects, folders_in(prior), prior, "there are no pictures of the class");
    need_partners(folders_in(prior), subjects, prior, "there are no real pictures of the subject");
  }
  std::vector<Sample> samples;
  for (const RealPictures& subject : real) {
    const auto pictures = pictures_in(one_subject ? prior : prior / subject.subject);
    const at::Tensor all =
        cosines(features_of(by.network, files_of(pictures)), features_of(by.network, subject.files))
            .mean(1);
    std::int64_t row = 0;
    for (const auto& [name, file] : pictures)
      samples.push_back({one_subject ? name : subject.subject + "/" + name,
                         one_subject ? name : subject.subject, all[row++].item<double>()});
  }
  return measured(std::string("PRES by ") + by.name, false, std::move(samples));
}

Measured prior_drift(const NamedNetwork& by, const fs::path& with, const fs::path& without) {
  const auto first = pictures_in(with), second = pictures_in(without);
  const auto names = [](const std::map<std::string, fs::path>& pictures) {
    std::set<std::string> all;
    for (const auto& [name, file] : pictures) all.insert(name);
    return all;
  };
  need_partners(names(first), names(second), without,
                "there is no matching picture made without the adapter");
  need_partners(names(second), names(first), with,
                "there is no matching picture made with the adapter");
  const at::Tensor same = paired_cosines(features_of(by.network, files_of(first)),
                                         features_of(by.network, files_of(second)));
  std::vector<Sample> samples;
  std::int64_t row = 0;
  for (const auto& [name, file] : first)
    samples.push_back({name, name, 1.0 - same[row++].item<double>()});
  return measured(std::string("prior drift by ") + by.name, false, std::move(samples));
}

std::string identity_of_pictures(const fs::path& folder) {
  return hash_of_files(files_of(pictures_in(folder)));
}

Evaluation evaluate_sets(const fs::path& generated, const fs::path& reference,
                         const FeatureNetwork& network) {
  const std::vector<fs::path> real = files_of(pictures_in(reference));
  const at::Tensor made = features_of(network, files_of(pictures_in(generated)));
  const at::Tensor wanted = features_of(network, real);
  Evaluation evaluation;
  evaluation.kind = "set";
  evaluation.protocol = {{"network", network.identity()}, {"real pictures", hash_of_files(real)}};
  // `quick` is the same with less work, for the resamples.
  const auto add = [&](const std::string& name, bool higher_is_better, const auto& distance,
                       const auto& quick) {
    constexpr int kResamples = 200;  // each one takes an eigendecomposition
    const auto of_rows = [&](const std::vector<std::size_t>& drawn) {
      return quick(rows_of(made, std::vector<std::int64_t>(drawn.begin(), drawn.end())));
    };
    Interval interval =
        bootstrap(static_cast<std::size_t>(made.size(0)), of_rows, {.resamples = kResamples});
    interval.mean = distance(made);
    evaluation.metrics.push_back(
        {name + " (" + network.name() + ")", higher_is_better, interval, {}});
  };
  const auto frechet = [&](const at::Tensor& rows) { return frechet_distance(rows, wanted); };
  const auto kernel = [&](const at::Tensor& rows) { return kernel_distance(rows, wanted); };
  const auto few_subsets = [&](const at::Tensor& rows) {
    return kernel_distance(rows, wanted, {.subsets = 5});
  };
  const auto discrepancy = [&](const at::Tensor& rows) {
    return clip_mean_discrepancy(rows, wanted);
  };
  add("Frechet distance", false, frechet, frechet);
  add("kernel distance", false, kernel, few_subsets);
  add("CMMD", false, discrepancy, discrepancy);
  add("Vendi score", true, vendi_score, vendi_score);
  evaluation.notes = {
      "intervals come from resampling the generated pictures, where repeats count as near ones: "
      "they lie above the distance itself, and below the Vendi score",
      "values by networks other than " + network.name() + " are not comparable"};
  return evaluation;
}

}  // namespace ringlet::eval

// Speech and what is said: a folder of .wav files with the text of each in a .txt file beside it.
#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <map>
#include <system_error>

#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include "ringlet/core/error.h"
#include "ringlet/data/caption_file.h"
#include "ringlet/data/picture_folder.h"
#include "ringlet/data/wave_file.h"
#include "ringlet/eval/text_metrics.h"
#include "ringlet/models/speech/wav2vec2.h"
#include "ringlet/nn/device.h"
#include "ringlet/tune/examples.h"
#include "ringlet/tune/tasks.h"

namespace ringlet::tune {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kRate = 16000;  // of every published wav2vec 2.0
constexpr const char* kWordEnd = "|";

struct Utterance {
  std::vector<float> samples;  ///< mean 0, deviation 1
  std::string text;
  std::vector<std::int64_t> letters;
};

/// Letters by number, as vocab.json has them.
class Letters {
 public:
  explicit Letters(const fs::path& folder) : where_((folder / "vocab.json").string()) {
    const Json table = read_json_file(where_);
    for (const auto& [letter, id] : table.items()) {
      if (!id.is_number_unsigned())
        throw Error(ErrorCode::bad_format, where_,
                    "the id of \"" + letter + "\" is not a valid index");
      ids_[letter] = id.get<std::int64_t>();
      letters_[id.get<std::int64_t>()] = letter;
    }
  }

  /// Throws Error(invalid_argument) naming `where` for a letter that the vocabulary lacks.
  std::vector<std::int64_t> of(const std::string& text, const std::string& where) const {
    std::vector<std::int64_t> numbers;
    for (const std::string& word : eval::words_of(text)) {
      if (!numbers.empty()) numbers.push_back(number(kWordEnd, where));
      for (const char c : word) numbers.push_back(number(std::string(1, c), where));
    }
    return numbers;
  }

  /// In lower case, so that texts compare whatever the vocabulary's case.
  std::string text(const std::vector<std::int64_t>& numbers) const {
    std::string text;
    for (const std::int64_t id : numbers) {
      const auto letter = letters_.find(id);
      if (letter == letters_.end() || letter->second.size() > 1) continue;  // <s>, <unk>, …
      const auto c = static_cast<unsigned char>(letter->second.front());
      text += letter->second == kWordEnd ? ' ' : static_cast<char>(std::tolower(c));
    }
    return text;
  }

 private:
  std::int64_t number(const std::string& letter, const std::string& where) const {
    const auto c = static_cast<unsigned char>(letter.front());
    for (const std::string& form : {letter, std::string(1, static_cast<char>(std::toupper(c))),
                                    std::string(1, static_cast<char>(std::tolower(c)))})
      if (const auto found = ids_.find(form); found != ids_.end()) return found->second;
    throw Error(ErrorCode::invalid_argument, where,
                "the text has \"" + letter + "\", which " + where_ + " lacks",
                "write numbers and signs as words");
  }

  std::string where_;
  std::map<std::string, std::int64_t> ids_;
  std::map<std::int64_t, std::string> letters_;
};

std::string lowered(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char c) {
    return static_cast<char>(c < 0x80 ? std::tolower(c) : c);
  });
  return text;
}

std::vector<float> standardised(std::vector<float> samples) {
  double sum = 0.0, squares = 0.0;
  for (const float value : samples) sum += value;
  const double mean = sum / static_cast<double>(samples.size());
  for (const float value : samples) squares += (value - mean) * (value - mean);
  constexpr double kEpsilon = 1e-7;
  const double scale = 1.0 / std::sqrt(squares / static_cast<double>(samples.size()) + kEpsilon);
  for (float& value : samples) value = static_cast<float>((value - mean) * scale);
  return samples;
}

class Speech final : public ExampleTask {
 public:
  Speech(const TaskOptions& options, const train::RunOptions& run)
      : ExampleTask(options, run),
        json_(read_config(options, "wav2vec2")),
        config_(models::Wav2Vec2Config::from_json(json_, (options.model / "config.json").string())),
        letters_(options.model),
        examples_(
            read_split<Utterance>(options, [&](const fs::path& folder) { return read(folder); })),
        device_(options.weights.device),
        files_(folder_files(options.model,
                            std::array{"config.json", "vocab.json", "preprocessor_config.json",
                                       "tokenizer_config.json", "special_tokens_map.json"})) {
    FolderWeights weights(options, "wav2vec2", json_);
    has_head_ = weights.has("lm_head.weight", {config_.vocabulary, config_.width});
    const nn::WeightSource source(weights.store({"lm_head."}), options.weights);
    speech_.emplace(source, config_);
    network_ = weights.layout().in_class(source.finish());
    made_layers_ = weights.made_layers();
    files_["config.json"] = with_class(json_, "wav2vec2", "Wav2Vec2ForCTC").dump(2) + "\n";
  }

  std::string description() const override { return "wav2vec2"; }
  std::size_t size_of(std::size_t row) const override {
    return examples_.train[row].samples.size();
  }
  std::vector<std::string> usual_targets() const override {
    return {"model.wav2vec2.encoder.layers.*"};
  }
  std::vector<std::string> heads() const override {
    return has_head_ ? std::vector<std::string>{} : std::vector<std::string>{"lm_head"};
  }
  std::size_t examples() const override { return examples_.train.size(); }
  std::size_t held_out() const override { return examples_.held_out.size(); }

  at::Tensor loss_of(std::span<const std::size_t> rows) const override {
    std::vector<std::int64_t> frames;
    std::vector<std::vector<std::int64_t>> letters;
    for (const std::size_t row : rows) {
      const Utterance& one = examples_.train[row];
      frames.push_back(config_.frames(static_cast<std::int64_t>(one.samples.size())));
      letters.push_back(one.letters);
    }
    return models::ctc_loss(scores(examples_.train, rows), frames, letters, config_.blank);
  }

  /// Norms count the silence behind sounds that are shorter than their batch's longest.
  bool is_mean() const override { return false; }

  std::vector<Score> evaluate() const override {
    constexpr std::size_t kBatch = 16;
    std::vector<std::string> said, truth;
    in_batches(examples_.held_out.size(), at_a_time(kBatch),
               [&](const std::vector<std::size_t>& rows) {
                 const at::Tensor all = scores(examples_.held_out, rows);
                 for (std::size_t i = 0; i < rows.size(); ++i) {
                   const Utterance& one = examples_.held_out[rows[i]];
                   const std::int64_t frames =
                       config_.frames(static_cast<std::int64_t>(one.samples.size()));
                   said.push_back(letters_.text(models::ctc_decode(
                       all[static_cast<std::int64_t>(i)].slice(0, 0, frames), config_.blank)));
                   truth.push_back(lowered(one.text));
                 }
               });
    return {{"word error rate", false, eval::word_error_rate(said, truth)},
            {"character error rate", false, eval::character_error_rate(said, truth)}};
  }

  std::map<std::string, std::string> model_files() const override { return files_; }

 private:
  std::vector<Utterance> read(const fs::path& folder) const {
    if (!fs::is_directory(folder))
      throw Error(ErrorCode::not_found, folder.string(), "the folder does not exist");
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(folder))
      if (data::lower_extension(entry.path()) == ".wav" && !data::is_of_other_program(entry.path()))
        files.push_back(entry.path());
    std::ranges::sort(files);
    std::vector<Utterance> utterances;
    for (const fs::path& file : files) {
      Utterance one;
      const fs::path text = fs::path(file).replace_extension(".txt");
      std::error_code problem;
      if (const auto size = fs::file_size(text, problem); problem || size == 0)
        throw Error(ErrorCode::not_found, file.string(), "the transcript is missing",
                    "write it into " + file.stem().string() + ".txt");
      one.text = data::read_caption(text).text;
      one.samples = standardised(data::resampled(data::read_wave(file), kRate).samples);
      one.letters = letters_.of(one.text, file.string());
      if (config_.frames(static_cast<std::int64_t>(one.samples.size())) == 0)
        throw Error(ErrorCode::invalid_argument, file.string(), "the sound is too short");
      utterances.push_back(std::move(one));
    }
    if (utterances.empty())
      throw Error(ErrorCode::not_found, folder.string(), "there are no .wav files in it");
    return utterances;
  }

  at::Tensor scores(const std::vector<Utterance>& all, std::span<const std::size_t> rows) const {
    std::vector<std::int64_t> lengths;
    for (const std::size_t row : rows)
      lengths.push_back(static_cast<std::int64_t>(all[row].samples.size()));
    const std::int64_t longest = std::ranges::max(lengths);
    at::Tensor sound = at::zeros({static_cast<std::int64_t>(rows.size()), longest});
    for (std::size_t i = 0; i < rows.size(); ++i)
      std::ranges::copy(all[rows[i]].samples,
                        sound.data_ptr<float>() + static_cast<std::int64_t>(i) * longest);
    return speech_->forward(nn::to_device(sound, device_), lengths);
  }

  Json json_;
  models::Wav2Vec2Config config_;
  Letters letters_;
  Split<Utterance> examples_;
  at::Device device_;
  std::map<std::string, std::string> files_;
  bool has_head_ = false;
  std::optional<models::Wav2Vec2> speech_;
};

}  // namespace

std::unique_ptr<train::Task> ctc(const TaskOptions& options, const train::RunOptions& run) {
  return std::make_unique<Speech>(options, run);
}

}  // namespace ringlet::tune

// Adapter files of all dialects, changed at random where it hurts: names, shapes, types, numbers,
// metadata, configurations. Whatever comes, the reader takes it or throws Error; with sanitizers
// this is a fuzzer that knows the format (scripts/test.sh --full runs it for a minute).
//
// RINGLET_MUTATIONS sets the number of files, RINGLET_MUTATION_SECONDS the time, and
// RINGLET_MUTATION_SEED where they begin.
#include <chrono>
#include <cstdlib>
#include <fstream>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/core/json.h"
#include "ringlet/core/random.h"
#include "ringlet/formats/adapter_reader.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/nn/weight_source.h"
#include "tests/temporary_folder.h"

namespace ringlet::formats {
namespace {

namespace fs = std::filesystem;

std::int64_t setting(const char* name, std::int64_t fallback) {
  const char* text = std::getenv(name);
  return text == nullptr ? fallback : std::atoll(text);
}

struct Adapter {
  std::string name;
  std::map<std::string, at::Tensor> tensors;
  io::Metadata metadata;
  Json config;  ///< null unless PEFT's
};

/// The golden files, and one of ringlet's own for each kind of part.
std::vector<Adapter> good_adapters(const adapt::Components& components, const fs::path& scratch) {
  const fs::path folder = fs::path(RINGLET_SOURCE_DIR) / "tests/golden/data/adapters";
  std::vector<Adapter> all;
  const auto add = [&](const std::string& name, const fs::path& file, Json config) {
    all.push_back({name, io::load_tensors(file), io::SafetensorsFile::open(file)->metadata(),
                   std::move(config)});
  };
  const Json list = read_json_file(folder / "cases.json");  // must outlive the loop
  for (const Json& one : list.at("cases")) {
    const fs::path path = folder / one.at("file").get<std::string>();
    if (fs::is_directory(path))
      add(one.at("name"), path / "adapter_model.safetensors",
          read_json_file(path / "adapter_config.json"));
    else
      add(one.at("name"), path, {});
  }
  for (const char* method : {"trm(rank=2)+tr(rank=2)", "oft(block=4)+lora+magnitude+bias",
                             "boft(block=4,factors=1)+lokr", "hra(rank=2)+loha(rank=2)",
                             "glora(rank=2)", "fourierft(n=7)", "foura(rank=2)", "vera(rank=3)",
                             "diff", "lora(rank=2,init=pissa)", "tt(rank=2)"}) {
    const auto targets = adapt::select_targets(components, {.include = {"*"}});
    const auto set = adapt::AdapterSet::create(adapt::parse_method(method), targets,
                                               adapt::FactorTable(), Random(1));
    adapt::save_adapter(scratch / "own", set);
    add(method, scratch / "own", {});
  }
  return all;
}

class Mutator {
 public:
  Mutator(std::uint64_t seed, std::uint64_t number)
      : draws_(Random(seed).stream("mutation", number)) {}

  void change(Adapter& adapter, const std::vector<Adapter>& others) {
    const std::uint64_t changes = 1 + pick(4);
    for (std::uint64_t i = 0; i < changes; ++i) {
      const std::uint64_t kind = pick(10);
      if (kind < 6 && !adapter.tensors.empty())
        change_tensor(adapter, others);
      else if (kind < 8 && !adapter.config.is_null())
        change_config(adapter.config);
      else if (!adapter.metadata.empty())
        change_metadata(adapter.metadata);
    }
  }

  std::uint64_t pick(std::uint64_t n) { return draws_.uniform_int(n); }

 private:
  template <class Map>
  auto any(Map& map) {
    return std::next(map.begin(), static_cast<std::ptrdiff_t>(pick(map.size())));
  }

  void change_tensor(Adapter& adapter, const std::vector<Adapter>& others) {
    const auto found = any(adapter.tensors);
    at::Tensor& tensor = found->second;
    switch (pick(9)) {
      case 0:
        adapter.tensors.erase(found);
        break;
      case 1: {
        const at::Tensor copy = tensor;
        const std::string name = found->first;
        adapter.tensors.erase(found);
        adapter.tensors[changed_text(name)] = copy;
        break;
      }
      case 2: {  // a tensor of another adapter
        const Adapter& other = others[pick(others.size())];
        if (!other.tensors.empty()) adapter.tensors.insert(*any(other.tensors));
        break;
      }
      case 3:
        tensor = tensor.to(any_type());
        break;
      case 4:
        if (tensor.dim() > 0) tensor = tensor.transpose(0, -1).contiguous();
        break;
      case 5:
        if (tensor.dim() > 0)
          tensor = tensor.narrow(0, 0, static_cast<std::int64_t>(pick(tensor.size(0) + 1))).clone();
        break;
      case 6: {
        std::vector<std::int64_t> sizes = tensor.sizes().vec();
        if (!sizes.empty()) sizes[pick(sizes.size())] = static_cast<std::int64_t>(pick(9));
        tensor = at::ones(sizes, tensor.options());
        break;
      }
      case 7:
        tensor = pick(2) == 0 ? tensor.flatten() : tensor.unsqueeze(-1);
        break;
      default:
        tensor = tensor * number();
    }
  }

  at::ScalarType any_type() {
    constexpr std::array kTypes = {at::kHalf, at::kBFloat16, at::kDouble, at::kInt,
                                   at::kLong, at::kBool,     at::kByte};
    return kTypes[pick(kTypes.size())];
  }

  double number() {
    constexpr std::array kNumbers = {0.0, -1.0, 1e30, -1e-30, 0.5, 2147483648.0, 1e300};
    const std::uint64_t i = pick(kNumbers.size() + 2);
    if (i == kNumbers.size()) return std::numeric_limits<double>::quiet_NaN();
    return i > kNumbers.size() ? std::numeric_limits<double>::infinity() : kNumbers[i];
  }

  std::string changed_text(std::string text) {
    static const std::vector<std::string> kPieces = {
        "..",   "/",          ".", "",      "lora_unet_", "unet.", "base_model.model.",
        ":0",   "9999999999", "(", "rank=", ",",          "+",     "=",
        "-1",   "{",          "}", "\"",    ".*",         "conv",  "linear",
        "\x01", "é"};
    const std::uint64_t at = pick(text.size() + 1);
    switch (pick(3)) {
      case 0:
        return text.insert(at, kPieces[pick(kPieces.size())]);
      case 1:
        return text.erase(at, 1 + pick(4));
      default:
        return text.substr(0, at);
    }
  }

  void change_metadata(io::Metadata& metadata) {
    const auto found = any(metadata);
    if (pick(6) == 0)
      metadata.erase(found);
    else
      found->second = changed_text(found->second);
  }

  void change_config(Json& config) {
    if (!config.is_object() || config.empty()) return;
    const auto found = any(config);
    switch (pick(5)) {
      case 0:
        config.erase(found.key());
        break;
      case 1:
        config[changed_text("use_new")] = true;
        break;
      case 2:
        config[found.key()] = static_cast<std::int64_t>(pick(100)) - 3;
        break;
      case 3:
        config[found.key()] = found->is_string() ? Json(changed_text(*found)) : Json("text");
        break;
      default:
        config[found.key()] =
            pick(2) == 0 ? Json::object({{changed_text("linear"), 3}}) : Json(number() == 0.0);
    }
  }

  RandomStream draws_;
};

/// A file in memory, written as the format says, without the writer's own checks.
class MemoryFile {
 public:
  MemoryFile() : descriptor_(memfd_create("adapter", MFD_CLOEXEC)) {}
  ~MemoryFile() { close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  fs::path path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

  void write(const Adapter& adapter) const {
    static const std::map<at::ScalarType, const char*> kNames = {
        {at::kFloat, "F32"}, {at::kHalf, "F16"}, {at::kBFloat16, "BF16"}, {at::kDouble, "F64"},
        {at::kInt, "I32"},   {at::kLong, "I64"}, {at::kBool, "BOOL"},     {at::kByte, "U8"}};
    Json header = Json::object();
    std::string data;
    for (const auto& [name, tensor] : adapter.tensors) {
      const at::Tensor flat = tensor.contiguous();
      const std::size_t begin = data.size();
      data.append(static_cast<const char*>(flat.data_ptr()), flat.nbytes());
      header[name] = {{"dtype", kNames.at(flat.scalar_type())},
                      {"shape", flat.sizes().vec()},
                      {"data_offsets", {begin, data.size()}}};
    }
    if (!adapter.metadata.empty()) header["__metadata__"] = adapter.metadata;
    const std::string text = header.dump(-1, ' ', false, Json::error_handler_t::replace);
    const std::uint64_t length = text.size();
    std::string all(reinterpret_cast<const char*>(&length), sizeof length);
    all += text + data;
    ASSERT_EQ(ftruncate(descriptor_, 0), 0);
    ASSERT_EQ(pwrite(descriptor_, all.data(), all.size(), 0), static_cast<ssize_t>(all.size()));
  }

 private:
  int descriptor_;
};

/// Everything that the golden files and ringlet's own name.
std::map<std::string, nn::ModuleIndex> network() {
  std::map<std::string, nn::ModuleIndex> indices;
  const auto base = io::load_tensors(fs::path(RINGLET_SOURCE_DIR) /
                                     "tests/golden/data/adapters/base.safetensors");
  for (const auto& [name, weight] : base) {
    if (!name.ends_with(".weight")) continue;
    const std::string path = name.substr(0, name.size() - 7);
    nn::ModuleIndex& index = indices[path.starts_with("text_model.") ? "text_encoder" : "unet"];
    const at::Tensor& bias = base.at(path + ".bias");
    if (weight.dim() == 4)
      index.layers[path] =
          std::make_shared<nn::Conv2dLayer>(weight, bias, nn::Conv2dOptions{.padding = 1});
    else if (weight.dim() == 2)
      index.layers[path] = std::make_shared<nn::LinearLayer>(weight, bias);
    else
      index.tensors = {{path + ".weight", weight}, {path + ".bias", bias}};
  }
  return indices;
}

TEST(AdapterMutations, AreTakenOrRefusedAndNothingElse) {
  const std::int64_t count = setting("RINGLET_MUTATIONS", 3000);
  const std::int64_t seconds = setting("RINGLET_MUTATION_SECONDS", 3600);
  const auto seed = static_cast<std::uint64_t>(setting("RINGLET_MUTATION_SEED", 1));
  const at::NoGradGuard no_grad;
  const auto indices = network();
  adapt::Components components;
  for (const auto& [name, index] : indices) components.emplace(name, &index);
  const TemporaryFolder folder;
  const std::vector<Adapter> good = good_adapters(components, folder / "");
  const MemoryFile file;
  fs::create_directories(folder / "peft");
  fs::create_symlink(file.path(), folder / "peft/adapter_model.safetensors");
  const auto begin = std::chrono::steady_clock::now();
  std::int64_t taken = 0, number = 0;
  for (; number < count; ++number) {
    if (std::chrono::steady_clock::now() - begin > std::chrono::seconds(seconds)) break;
    Mutator mutator(seed, static_cast<std::uint64_t>(number));
    Adapter adapter = good[mutator.pick(good.size())];
    mutator.change(adapter, good);
    file.write(adapter);
    const bool peft = !adapter.config.is_null();
    if (peft)
      std::ofstream(folder / "peft/adapter_config.json")
          << adapter.config.dump(-1, ' ', false, Json::error_handler_t::replace);
    try {
      const ReadAdapter read = read_adapter(peft ? folder / "peft" : file.path(), components);
      for (const auto& entry : read.set.entries())
        entry.adapter->weight(entry.target.layer->weight());
      ++taken;
    } catch (const Error& error) {
      EXPECT_NE(error.code(), ErrorCode::internal) << number << ": " << error.what();
      EXPECT_FALSE(error.message().empty());
    } catch (const std::exception& problem) {
      ADD_FAILURE() << "file " << number << " (" << adapter.name << "): " << problem.what();
    }
    for (const auto& [name, index] : indices)
      for (const auto& [path, layer] : index.layers) ASSERT_EQ(layer->adapter, nullptr);
    if (testing::Test::HasFailure()) break;
  }
  std::printf("%lld files, %lld of them taken\n", static_cast<long long>(number),
              static_cast<long long>(taken));
  EXPECT_GT(taken, 0);
  EXPECT_LT(taken, number);
}

}  // namespace
}  // namespace ringlet::formats

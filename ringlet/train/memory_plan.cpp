#include "ringlet/train/memory_plan.h"

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"

namespace ringlet::train {
namespace {

constexpr const char* kParts = "micro-batch parts";
constexpr const char* kRecomputed = "recomputed blocks";
constexpr const char* kBaseStorage = "base storage";
constexpr const char* kTile = "autoencoder tile";
constexpr const char* kOffloaded = "offloaded blocks";
constexpr const char* kAll = "all";

/// A choice for the blocks so far that no other one beats in both numbers.
struct Choice {
  double kept = 0.0;  ///< bytes
  double work = 0.0;  ///< of the blocks that are computed again
  std::size_t node = 0;
};

/// How a choice came about: the one before it, and what it adds.
struct Node {
  std::size_t before;
  const std::string* recomputed;  ///< null = the block is kept
};

/// The choices of either list that no other one beats, by growing bytes and falling work.
std::vector<Choice> unbeaten(const std::vector<Choice>& a, const std::vector<Choice>& b) {
  std::vector<Choice> all;
  all.reserve(a.size() + b.size());
  std::ranges::merge(a, b, std::back_inserter(all), [](const Choice& x, const Choice& y) {
    return std::pair(x.kept, x.work) < std::pair(y.kept, y.work);
  });
  std::vector<Choice> left;
  for (const Choice& choice : all)
    if (left.empty() || choice.work < left.back().work) left.push_back(choice);
  return left;
}

/// Very many are thinned out: of those in one part of the bytes that are at hand, the first.
void thin_out(std::vector<Choice>& choices, double bytes) {
  constexpr std::size_t kMany = std::size_t{1} << 16;
  if (choices.size() <= kMany) return;
  const double cell = bytes / static_cast<double>(kMany / 2);
  double next = -1.0;
  std::erase_if(choices, [&](const Choice& choice) {
    if (choice.kept < next) return true;
    next = choice.kept + cell;
    return false;
  });
}

/// Blocks of one name together, at the first of them.
std::vector<pipeline::StepBlock> joined_by_name(std::span<const pipeline::StepBlock> blocks) {
  std::vector<pipeline::StepBlock> joined;
  std::map<std::string, std::size_t> first;
  for (const pipeline::StepBlock& block : blocks) {
    joined.push_back(block);
    if (block.name.empty()) continue;
    const auto [found, is_new] = first.emplace(block.name, joined.size() - 1);
    if (is_new) continue;
    joined[found->second].inside += block.inside;
    joined[found->second].work += block.work;
    pipeline::StepBlock& later = joined.back();
    later.name.clear();
    later.passing += std::exchange(later.inside, 0.0);
  }
  return joined;
}

nn::RecomputedBlocks blocks_of(const std::vector<Node>& nodes, std::size_t node) {
  nn::RecomputedBlocks found;
  for (; node != 0; node = nodes[node].before)
    if (nodes[node].recomputed != nullptr) found.names.insert(*nodes[node].recomputed);
  return found;
}

/// What a part more costs, relative to a step: the frozen weights are read once more.
constexpr double kPartCost = 0.04;

/// Of the numbers of parts, those that make the largest part smaller.
std::vector<std::int64_t> useful_parts(const MemoryChoices& choices) {
  std::vector<std::int64_t> useful = {1};
  std::int64_t largest = choices.batch_size;
  for (std::int64_t parts = 2; choices.divisible && parts <= choices.batch_size; ++parts) {
    const std::int64_t rows = (choices.batch_size + parts - 1) / parts;
    if (rows < largest) useful.push_back(parts);
    largest = std::min(largest, rows);
  }
  return useful;
}

}  // namespace

bool MemorySavings::any() const {
  return recomputed.any() || parts > 1 || storage != nn::WeightStorage::as_stored || tile > 0 ||
         offloaded > 0;
}

Json to_json(const MemorySavings& savings) {
  if (!savings.any()) return nullptr;
  Json json = Json::object();
  if (savings.recomputed.all)
    json[kRecomputed] = kAll;
  else if (savings.recomputed.any())
    json[kRecomputed] = savings.recomputed.names;
  if (savings.parts > 1) json[kParts] = savings.parts;
  if (savings.storage != nn::WeightStorage::as_stored)
    json[kBaseStorage] = nn::weight_storage_name(savings.storage);
  if (savings.tile > 0) json[kTile] = savings.tile;
  if (savings.offloaded > 0) json[kOffloaded] = savings.offloaded;
  return json;
}

MemorySavings savings_from_json(const Json& json, const std::string& where) {
  MemorySavings savings;
  if (json.is_null()) return savings;
  const auto wrong = [&](const std::string& what) {
    throw Error(ErrorCode::bad_format, where, "the memory savings of the run: " + what);
  };
  if (!json.is_object()) wrong("not an object");
  savings.parts = json_value<std::int64_t>(json, kParts, 1, where);
  savings.tile = json_value<std::int64_t>(json, kTile, 0, where);
  savings.offloaded = json_value<std::int64_t>(json, kOffloaded, 0, where);
  if (savings.parts < 1 || savings.tile < 0 || savings.offloaded < 0)
    wrong("a number below its range");
  const auto storage = json_value<std::string>(
      json, kBaseStorage, nn::weight_storage_name(nn::WeightStorage::as_stored), where);
  const auto* const known = std::ranges::find(
      nn::kWeightStorageNames, storage, [](const auto& row) { return std::string(row.first); });
  if (known == nn::kWeightStorageNames.end()) wrong("unknown storage \"" + storage + "\"");
  savings.storage = known->second;
  const auto blocks = json.find(kRecomputed);
  if (blocks == json.end()) return savings;
  savings.recomputed.all = *blocks == kAll;
  if (savings.recomputed.all) return savings;
  for (const std::string& name : json_value<std::vector<std::string>>(json, kRecomputed, {}, where))
    savings.recomputed.names.insert(name);
  return savings;
}

std::uint64_t MemoryNeed::peak(const nn::RecomputedBlocks& recomputed) const {
  const double step = pipeline::step_peak(blocks, recomputed);
  return std::max(apart, beside + static_cast<std::uint64_t>(step));
}

double MemoryNeed::extra_work(const nn::RecomputedBlocks& recomputed) const {
  double all = 0.0, again = 0.0;
  for (const pipeline::StepBlock& block : blocks) {
    all += block.work;
    if (!block.name.empty() && recomputed.contains(block.name)) again += block.work;
  }
  // The base is frozen: the backward pass computes the gradients of inputs alone.
  constexpr double kPasses = 2.0;
  return all > 0.0 ? again / (kPasses * all) : 0.0;
}

std::optional<nn::RecomputedBlocks> cheapest_recomputation(
    std::span<const pipeline::StepBlock> blocks, double bytes) {
  const std::vector<pipeline::StepBlock> joined = joined_by_name(blocks);
  std::vector<Node> nodes = {{0, nullptr}};
  std::vector<Choice> choices = {{}};
  double before = 0.0;
  for (const pipeline::StepBlock& block : joined) {
    before += block.before;
    std::erase_if(choices, [&](const Choice& choice) {
      return choice.kept + before + block.inside + block.passing > bytes;
    });
    if (choices.empty()) return std::nullopt;
    std::vector<Choice> kept, again;
    const auto grow = [&](std::vector<Choice>& grown, const Choice& from, bool recomputed) {
      nodes.push_back({from.node, recomputed ? &block.name : nullptr});
      grown.push_back({from.kept + (recomputed ? 0.0 : block.inside),
                       from.work + (recomputed ? block.work : 0.0), nodes.size() - 1});
    };
    for (const Choice& choice : choices) {
      grow(kept, choice, false);
      if (!block.name.empty() && block.inside > 0.0) grow(again, choice, true);
    }
    choices = unbeaten(kept, again);
    thin_out(choices, bytes);
  }
  return blocks_of(nodes, choices.back().node);  // the least work
}

std::optional<PlannedMemory> plan_memory(const MemoryChoices& choices, const MemorySavings& base,
                                         const NeedOf& need) {
  std::optional<PlannedMemory> best;
  for (const std::int64_t tile : choices.tiles) {
    for (const std::int64_t parts : useful_parts(choices)) {
      PlannedMemory plan{.savings = base};
      plan.savings.parts = parts;
      plan.savings.tile = tile;
      const MemoryNeed of = need(plan.savings);
      if (of.apart > choices.limit) break;  // more parts change nothing about that
      if (of.beside > choices.limit) return best;
      const auto blocks =
          cheapest_recomputation(of.blocks, static_cast<double>(choices.limit - of.beside));
      if (!blocks) continue;
      plan.savings.recomputed = *blocks;
      plan.peak = of.peak(*blocks);
      plan.extra_work = of.extra_work(*blocks) + kPartCost * static_cast<double>(parts - 1);
      if (!best || plan.extra_work < best->extra_work) best = plan;
    }
    if (best) return best;
  }
  return best;
}

std::uint64_t smallest_peak(const MemoryChoices& choices, const MemorySavings& base,
                            const NeedOf& need) {
  std::uint64_t smallest = std::numeric_limits<std::uint64_t>::max();
  MemorySavings savings = base;
  savings.parts = useful_parts(choices).back();
  for (const std::int64_t tile : choices.tiles) {
    savings.tile = tile;
    smallest = std::min(smallest, need(savings).peak({.all = true}));
  }
  return smallest;
}

std::string text_of(const MemorySavings& savings) {
  std::vector<std::string> words;
  if (savings.recomputed.all)
    words.emplace_back("all blocks are computed again");
  else if (savings.recomputed.any())
    words.push_back(std::to_string(savings.recomputed.names.size()) + " blocks are computed again");
  if (savings.parts > 1) words.push_back("batches in " + std::to_string(savings.parts) + " parts");
  if (savings.storage != nn::WeightStorage::as_stored)
    words.push_back("base in " + nn::weight_storage_name(savings.storage));
  if (savings.tile > 0)
    words.push_back("autoencoder in tiles of " + std::to_string(savings.tile) + " pixels");
  if (savings.offloaded > 0)
    words.push_back(std::to_string(savings.offloaded) + " blocks in host memory");
  return join(words);
}

std::string limit_text(std::uint64_t bytes) {
  constexpr std::uint64_t kUnit = std::uint64_t{1} << 20;
  return std::to_string((bytes + kUnit - 1) / kUnit) + "M";
}

}  // namespace ringlet::train

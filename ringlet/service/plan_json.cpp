#include "ringlet/service/plan_json.h"

#include <vector>

#include "ringlet/data/folder_note.h"

namespace ringlet::service {
namespace {

Json notes_json(const std::vector<data::FolderNote>& notes) {
  Json all = Json::array();
  for (const data::FolderNote& note : notes) {
    Json files = Json::array();
    for (const auto& file : note.files) files.push_back(file.generic_string());
    all.push_back(
        {{"kind", data::name_of(note.kind)}, {"text", data::text_of(note)}, {"files", files}});
  }
  return all;
}

}  // namespace

Json to_json(const train::FineTunePlan& plan) {
  Json captions = Json::array(), too_long = Json::array();
  for (const auto& [caption, tokens] : plan.examples)
    captions.push_back({{"caption", caption}, {"tokens", tokens}});
  for (const auto& [where, text] : plan.too_long)
    too_long.push_back(
        {{"where", where}, {"tokens", text.tokens}, {"limit", text.limit}, {"cut", text.cut}});
  return {{"model", plan.model_kind},
          {"pictures", plan.pictures},
          {"captions_from_files", plan.captions},
          {"captions", captions},
          {"captions_too_long", too_long},
          {"notes", notes_json(plan.notes)},
          {"class_pictures", plan.class_pictures},
          {"class_pictures_found", plan.class_found},
          {"class_pictures_to_make", plan.class_to_make},
          {"class_notes", notes_json(plan.class_notes)},
          {"method", plan.method},
          {"layers", plan.layers},
          {"parameters", plan.parameters},
          {"control_parameters", plan.control_parameters},
          {"validation_pictures", plan.validation},
          {"resolution", plan.resolution},
          {"steps", plan.steps},
          {"first_step", plan.first_step},
          {"epochs", plan.epochs},
          {"optimizer", plan.optimizer},
          {"expected_bytes", plan.expected_bytes}};
}

Json to_json(const tune::TunePlan& plan) {
  return {{"network", plan.network},       {"examples", plan.examples},
          {"held_out", plan.held_out},     {"method", plan.method},
          {"layers", plan.layers},         {"new_layers", plan.new_layers},
          {"parameters", plan.parameters}, {"epochs", plan.epochs},
          {"optimizer", plan.optimizer},   {"first_step", plan.first_step}};
}

Json to_json(const tune::ScoreRow& row) {
  Json scores = Json::object();
  for (const tune::Score& score : row.scores) scores[score.name] = score.value;
  return {{"step", row.step}, {"scores", scores}};
}

}  // namespace ringlet::service

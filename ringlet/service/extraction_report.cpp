#include "ringlet/service/extraction_report.h"

#include <utility>

#include "ringlet/adapt/method_text.h"
#include "ringlet/draw/plot.h"

namespace ringlet::service {
namespace {

Json fit_json(const adapt::FitResult& result) {
  return {{"relative_error", result.relative_error},
          {"parameters", result.parameters},
          {"steps", result.steps},
          {"seconds", result.seconds},
          {"closed_form", result.closed_form},
          {"converged", result.converged}};
}

}  // namespace

Json to_json(const pipeline::ModelDifference& difference, const pipeline::Extraction& extraction) {
  Json layers = Json::array();
  for (const pipeline::LayerFit& layer : extraction.layers) {
    Json row = fit_json(layer.result);
    row.update({{"layer", layer.name}, {"method", layer.method}, {"change", layer.change}});
    layers.push_back(std::move(row));
  }
  return {{"method", adapt::method_text(extraction.set.method())},
          {"share", difference.share},
          {"unchanged", difference.unchanged},
          {"rounded", difference.rounded},
          {"types", difference.types},
          {"rounding", difference.rounding},
          {"layers", layers},
          {"total", fit_json(extraction.total)}};
}

Json to_json(const pipeline::ModelDifference& difference,
             const pipeline::FitComparison& comparison) {
  Json fits = Json::array();
  for (const pipeline::ComparedFit& fit : comparison.fits) {
    Json row = fit_json(fit.total);
    row.update({{"curve", fit.curve},
                {"method", fit.method},
                {"budget", fit.budget},
                {"converged_layers", fit.converged}});
    fits.push_back(std::move(row));
  }
  return {{"share", difference.share},          {"rounded", difference.rounded},
          {"types", difference.types},          {"rounding", difference.rounding},
          {"layers", difference.layers.size()}, {"fits", fits},
          {"left_out", comparison.left_out}};
}

io::Image draw_comparison(const pipeline::FitComparison& comparison) {
  draw::Plot plot;
  plot.title = "Relative error of W* - W0 against parameters";
  plot.x_label = "parameters";
  plot.y_label = "|W' - W*| / |W* - W0|";
  plot.logarithmic_x = true;
  plot.zero_y = true;
  for (const pipeline::ComparedFit& fit : comparison.fits) {
    if (plot.curves.empty() || plot.curves.back().name != fit.curve)
      plot.curves.push_back({fit.curve, {}});
    plot.curves.back().points.emplace_back(static_cast<double>(fit.total.parameters),
                                           fit.total.relative_error);
  }
  return draw::draw_plot(plot);
}

}  // namespace ringlet::service

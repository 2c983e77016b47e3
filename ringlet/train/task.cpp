#include "ringlet/train/task.h"

#include "ringlet/core/text.h"

namespace ringlet::train {

void Task::describe(Report& report, const std::vector<ScoreRow>& scores) const {
  if (scores.empty()) return;
  for (std::size_t i = 0; i < scores.front().scores.size(); ++i) {
    const Score& before = scores.front().scores[i];
    report.summary.emplace_back(before.name, short_number(before.value) + " before, " +
                                                 short_number(scores.back().scores[i].value) +
                                                 " after");
    ReportSeries series{before.name, {}};
    for (const ScoreRow& row : scores) series.values.emplace_back(row.step, row.scores[i].value);
    report.charts.push_back({before.name + " of held-out examples", {series}});
  }
}

}  // namespace ringlet::train

#include "ringlet/service/control_metric.h"

#include "ringlet/eval/control_metrics.h"
#include "ringlet/io/image.h"

namespace ringlet::service {

train::ControlMetric control_metric(const data::ControlSettings& settings) {
  if (settings.signal == data::ControlSignal::canny && settings.folder.empty())
    return {"F1 of edges",
            [canny = settings.canny](const io::Image& source, const io::Image& made) {
              return eval::edge_agreement(source, made, canny).f1;
            }};
  if (settings.signal == data::ControlSignal::segmentation && settings.folder.empty())
    return {"mIoU of colours", [](const io::Image& source, const io::Image& made) {
              eval::Confusion confusion(data::kColourClasses);
              confusion.add(data::segment_colours(source), data::segment_colours(made));
              return confusion.scores().mean_iou;
            }};
  return {};
}

}  // namespace ringlet::service

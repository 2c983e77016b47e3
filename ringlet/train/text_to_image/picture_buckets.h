// Which size each picture of a run is cut to.
#pragma once

#include <cstdint>
#include <filesystem>
#include <utility>
#include <vector>

#include "ringlet/core/picture_size.h"
#include "ringlet/data/dataset.h"
#include "ringlet/data/picture_folder.h"

namespace ringlet::train {

/// A size and how many pictures an epoch shows of it, with their repeats.
using BucketCounts = std::vector<std::pair<PictureSize, std::int64_t>>;

/// Gives every picture the bucket that its data set's rule chooses; those that keep the run's
/// `resolution` have none. Pictures that cannot be read are left as they are. Throws
/// Error(invalid_argument) for rules and resolutions that do not fit the model.
void place_in_buckets(std::vector<data::Picture>& pictures, const std::vector<data::Dataset>& sets,
                      PictureSize resolution, data::SideLimits limits);

/// The sizes that pictures are cut to, in the order of their first.
BucketCounts bucket_counts(const std::vector<data::Picture>& pictures, PictureSize resolution);

/// Class pictures for every bucket of the others: each in the bucket whose proportions are nearest
/// to its own. A bucket that is nearest to none has the first class pictures, too, as many as it
/// has pictures. With one bucket of the run's resolution they stay as they are.
std::vector<data::Picture> class_pictures_for(const BucketCounts& buckets,
                                              const std::vector<data::Picture>& class_pictures,
                                              PictureSize resolution);

/// The size of a picture as it is shown; empty where it cannot be read.
PictureSize size_of_picture(const std::filesystem::path& file);

}  // namespace ringlet::train

// Subject-driven generation as DreamBooth evaluates it (Ruiz et al. 2023), and distances of sets.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "ringlet/eval/evaluation.h"
#include "ringlet/eval/feature_network.h"
#include "ringlet/eval/perceptual_distance.h"

namespace ringlet::eval {

/// A generated picture.
struct SubjectPicture {
  std::string id;
  std::string subject;  ///< which real pictures it is compared with
  std::string prompt;   ///< as CLIP-T reads it; empty = not known
  std::filesystem::path file;
};

struct RealPictures {
  std::string subject;
  std::vector<std::filesystem::path> files;
};

/// Pictures of `generated` and `reference`: either folder holds the pictures of one subject, or
/// both hold a folder per subject, of the same names. The prompt of a picture is in its PNG text,
/// as ringlet and SD web UIs write it, or in a .txt file beside it; `token` is taken out of it
/// wherever it is a word of its own ("sks"), since CLIP knows no such word. Throws Error(not_found
/// | mismatch) that names what is missing on either side, and two pictures of one name.
std::pair<std::vector<SubjectPicture>, std::vector<RealPictures>> read_subjects(
    const std::filesystem::path& generated, const std::filesystem::path& reference,
    const std::string& token);

/// Generated pictures of one subject: these files, called by their names.
std::vector<SubjectPicture> read_generated(const std::vector<std::filesystem::path>& files,
                                           const std::string& token);

/// Real pictures of one subject, also from subfolders. Throws Error(mismatch) where the folder
/// holds one for each of several subjects, and as data::read_picture_folder.
RealPictures read_real(const std::filesystem::path& reference);

/// Which networks measure; null ones leave their metrics out.
struct SubjectNetworks {
  const FeatureNetwork* dino = nullptr;
  const FeatureNetwork* clip = nullptr;
};

/// Throws Error(invalid_argument) without any network.
void check_networks(const SubjectNetworks& networks);

/// DINO and CLIP-I: mean cosine of each generated picture with all real ones of its subject;
/// CLIP-T: with its prompt (where the network reads texts); DIV: mean 1 - cosine between pictures
/// of one subject and prompt, by DINO, or CLIP without it. Means are over units: subjects, or
/// prompts where there is one subject; a picture without a known prompt is a unit of its own there,
/// and no part of DIV, which a note says. Another note names OFT's pooled average, over all pairs
/// of a generated and a real picture of one subject. Throws as check_networks.
Evaluation evaluate_subjects(const std::vector<SubjectPicture>& generated,
                             const std::vector<RealPictures>& real,
                             const SubjectNetworks& networks);

/// DIV as DreamBooth states it: mean LPIPS between pictures of one subject and prompt; higher is
/// more diverse. Nothing where no prompt has two pictures.
std::optional<Measured> perceptual_diversity(const PerceptualDistance& distance,
                                             const std::vector<SubjectPicture>& generated);

/// The share of pictures whose own prompt is nearer than every one of `captions`, by a network that
/// reads texts: zero-shot classification (Radford et al. 2021).
Measured caption_accuracy(const FeatureNetwork& network,
                          const std::vector<SubjectPicture>& generated,
                          const std::vector<std::string>& captions);

/// A network and what metrics by it are called: "DINO", "CLIP-I". Numbers by other networks are not
/// comparable.
struct NamedNetwork {
  const char* name;
  const FeatureNetwork& network;
};

/// DINO, or CLIP without it: which network PRES, drift and DIV are by. Throws as check_networks.
NamedNetwork main_network(const SubjectNetworks& networks);

/// "PRES by DINO": mean cosine of pictures of the class, made with the adapter, with the real
/// subject; lower is better. With several subjects `prior` holds a folder for each. Throws
/// Error(mismatch) for folders without a partner.
Measured prior_preservation(const NamedNetwork& by, const std::filesystem::path& prior,
                            const std::vector<RealPictures>& real);

/// "prior drift by DINO", on unrelated prompts: mean 1 - cosine of pictures of the same name
/// (prompt and seed), made with and without the adapter; lower is better. Throws Error(mismatch)
/// for names without a partner on either side.
Measured prior_drift(const NamedNetwork& by, const std::filesystem::path& with,
                     const std::filesystem::path& without);

/// What drift is measured against, for the protocol: a hash of the pictures without the adapter.
std::string identity_of_pictures(const std::filesystem::path& folder);

/// FID, KID and CMMD of two folders by this network's features, and the Vendi score of the
/// generated one (how many different pictures it amounts to), with intervals over the generated
/// pictures. They are called after the network, since numbers by other networks are not comparable.
Evaluation evaluate_sets(const std::filesystem::path& generated,
                         const std::filesystem::path& reference, const FeatureNetwork& network);

}  // namespace ringlet::eval

#include "ringlet/formats/adapter_kind.h"

#include <gtest/gtest.h>

#include "ringlet/io/safetensors.h"
#include "tests/temporary_folder.h"

namespace ringlet::formats {
namespace {

struct Case {
  const char* name;
  std::vector<std::string> tensors;
  const char* kind;
  const char* component;  ///< of the first tensor
};

class AdapterKind : public testing::TestWithParam<Case> {};

TEST_P(AdapterKind, IsReadFromTheNames) {
  const TemporaryFolder folder;
  std::vector<io::TensorBytes> tensors;
  for (const std::string& name : GetParam().tensors)
    tensors.push_back({name, io::Dtype::f32, {0}, {}});
  io::write_safetensors(folder / "a.safetensors", tensors);
  EXPECT_EQ(file_kind(*io::SafetensorsFile::open(folder / "a.safetensors")), GetParam().kind);
  EXPECT_EQ(adapter_component(GetParam().tensors.front()), GetParam().component);
}

TEST(OwnAdapterKind, RingletsOwnFilesSayTheirMethod) {
  const TemporaryFolder folder;
  const std::vector<io::TensorBytes> tensors = {{"unet.a.residual.up", io::Dtype::f32, {0}, {}}};
  io::write_safetensors(folder / "a.safetensors", tensors, {{"ringlet.method", "lora(rank=4)"}});
  io::write_safetensors(folder / "b.safetensors", tensors, {{"format", "ringlet.train_state"}});
  EXPECT_EQ(file_kind(*io::SafetensorsFile::open(folder / "a.safetensors")),
            "lora(rank=4) adapter (ringlet)");
  EXPECT_EQ(file_kind(*io::SafetensorsFile::open(folder / "b.safetensors")),
            "training checkpoint (ringlet)");
}

INSTANTIATE_TEST_SUITE_P(
    Dialects, AdapterKind,
    testing::Values(
        Case{"kohya",
             {"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"},
             "LoRA adapter (kohya)",
             "unet"},
        Case{"kohya_xl_text",
             {"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight"},
             "LoRA adapter (kohya)",
             "text_encoder_2"},
        Case{"lokr", {"lora_te_text_model_x.lokr_w1"}, "LoKr adapter (kohya)", "text_encoder"},
        Case{"dora",
             {"lora_unet_x.dora_scale", "lora_unet_x.lora_down.weight"},
             "DoRA adapter (kohya)",
             "unet"},
        Case{"lycoris", {"lycoris_down_blocks_0.hada_w1_a"}, "LoHa adapter (LyCORIS)", "unet"},
        Case{"diffusers",
             {"unet.down_blocks.0.attentions.0.processor.to_q_lora.down.weight"},
             "LoRA adapter (diffusers)",
             "unet"},
        Case{"peft",
             {"base_model.model.down_blocks.0.to_q.lora_A.weight"},
             "LoRA adapter (PEFT)",
             "tensors"},
        Case{"cloneofsimo", {"unet:0:down", "unet:0:up"}, "LoRA adapter (cloneofsimo)", "unet"},
        Case{"kohya_oft",
             {"oft_unet_x.oft_blocks", "oft_unet_x.alpha"},
             "OFT adapter (kohya)",
             "unet"},
        Case{"comfyui",
             {"diffusion_model.input_blocks.1.1.proj_in.lora_up.weight"},
             "LoRA adapter (ComfyUI)",
             "unet"},
        Case{"comfyui_text",
             {"text_encoders.clip_g.transformer.text_model.x.lora_A.weight"},
             "LoRA adapter (ComfyUI)",
             "text_encoder_2"},
        Case{
            "bundle",
            {"bundle_emb.dog.clip_l", "lora_unet_x.lora_up.weight", "lora_unet_x.lora_down.weight"},
            "LoRA adapter (kohya) with embeddings",
            "embeddings"},
        Case{"hra", {"base_model.model.x.hra_u"}, "HRA adapter (PEFT)", "tensors"},
        Case{"ia3_of_peft", {"base_model.model.x.ia3_l"}, "IA3 adapter (PEFT)", "tensors"},
        Case{"glora",
             {"lycoris_x.b1.weight", "lycoris_x.a1.weight"},
             "GLoRA adapter (LyCORIS)",
             "unet"},
        Case{"not_adapters", {"block.down.weight", "block.up.weight"}, "tensors", "tensors"},
        Case{"bundle_alone", {"bundle_emb.dog.clip_l"}, "textual inversion", "embeddings"},
        Case{"inversion", {"emb_params"}, "textual inversion", "tensors"},
        Case{"latents", {"latents"}, "latents", "tensors"},
        Case{"unknown", {"weight"}, "tensors", "tensors"}),
    [](const testing::TestParamInfo<Case>& test) { return test.param.name; });

}  // namespace
}  // namespace ringlet::formats

#include "checkpoint/hugging_face_weights.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.hpp"
#include "io/safetensors/safetensors.hpp"

namespace llama3d {
namespace {

namespace fs = std::filesystem;

constexpr const char* embedding = "model.embed_tokens.weight";
constexpr const char* head = "lm_head.weight";

class HuggingFaceWeights : public WeightSource {
 public:
  explicit HuggingFaceWeights(const fs::path& folder) {
    folder_ = folder;
    if (std::error_code ignored; fs::exists(folder / "adapter_config.json", ignored))
      throw DataError(fmt::format(
          "Hugging Face folder {} cannot be used (it has an adapter, see its adapter_config.json, "
          "that would not be applied); merge the adapter into the weights, or take it out",
          folder.string()));
    origin_ = WeightOrigin::of_folder(folder);
    model_ = load_model_config((folder / "config.json").string());
    model_.name = folder.string();
    reader_ = std::make_unique<SafetensorsReader>(folder);
    for (const SafetensorsTensor& tensor : reader_->tensors()) {
      const std::string& type = tensor.dtype;
      if (type != "F32" && type != "BF16" && type != "F16") unusable_.push_back(tensor.name);
      tensors_.push_back({tensor.name, tensor.shape, type == "BF16" ? DType::bf16 : DType::fp32});
    }
  }

  bool is_checkpoint() const override { return false; }
  void read(const std::string& name, const Rectangle& rectangle, void* out, DType out_dtype) const override {
    reader_->read(name, rectangle, out, out_dtype);
  }
  void verify(int part, int parts) const override {
    if (!model_.tied_embeddings || !find(head)) return;
    const std::int64_t rows = model_.vocabulary, columns = model_.hidden;
    const std::int64_t end = rows * (part + 1) / parts,
                       at_once = std::max<std::int64_t>(1, (4 << 20) / columns);
    std::vector<float> left(static_cast<std::size_t>(at_once * columns)), right(left.size());
    for (std::int64_t row = rows * part / parts; row < end; row += at_once) {
      const Rectangle some{row, std::min(end, row + at_once), 0, columns};
      reader_->read(embedding, some, left.data(), DType::fp32);
      reader_->read(head, some, right.data(), DType::fp32);
      const auto [other, _] =
          std::mismatch(left.begin(), left.begin() + some.elements(), right.begin(),
                        [](float a, float b) { return a == b || (std::isnan(a) && std::isnan(b)); });
      if (const auto same = other - left.begin(); same < some.elements()) refuse_head(row + same / columns);
    }
  }

 protected:
  void refuse(const std::string& reason) const override {
    throw DataError(
        fmt::format("Hugging Face folder {} cannot be used ({}); give one with the weights of its "
                    "config.json",
                    folder_.string(), reason));
  }

 private:
  [[noreturn]] void refuse_head(std::int64_t row) const {
    throw DataError(fmt::format(
        "Hugging Face folder {} cannot be used (its config.json ties the embeddings, but {} is not {}: row "
        "{} "
        "differs); set tie_word_embeddings to false there to use both, as transformers does, or take {} out",
        folder_.string(), head, embedding, row, head));
  }

  std::unique_ptr<SafetensorsReader> reader_;
};

}  // namespace

std::unique_ptr<WeightSource> open_hugging_face(const fs::path& folder) {
  return std::make_unique<HuggingFaceWeights>(folder);
}

}  // namespace llama3d

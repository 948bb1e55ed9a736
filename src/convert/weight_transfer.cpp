#include "convert/weight_transfer.hpp"

#include <algorithm>

#include "base/error.hpp"

namespace llama3d {

WeightDType parse_weight_dtype(std::string_view word) {
  for (const WeightDType dtype : {WeightDType::same, WeightDType::bf16, WeightDType::fp32})
    if (word == name_of(dtype)) return dtype;
  throw ConfigurationError(fmt::format("`dtype {}`: unknown; use same, bf16 or fp32", word));
}

std::string_view name_of(WeightDType dtype) {
  switch (dtype) {
    case WeightDType::same: return "same";
    case WeightDType::bf16: return "bf16";
    case WeightDType::fp32: return "fp32";
  }
  return "?";
}

std::int64_t bytes_of(const WeightTensor& tensor) {
  return whole(tensor.shape).elements() * static_cast<std::int64_t>(size_of(tensor.dtype));
}

std::vector<TensorPiece> pieces_of(const std::vector<WeightTensor>& tensors) {
  constexpr std::int64_t most_bytes = std::int64_t{32} << 20;
  std::vector<TensorPiece> pieces;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const Rectangle all = whole(tensors[i].shape);
    const std::int64_t row_bytes = all.columns() * static_cast<std::int64_t>(size_of(tensors[i].dtype));
    const std::int64_t rows_at_once = std::max<std::int64_t>(1, most_bytes / row_bytes);
    for (std::int64_t row = 0; row < all.row_end; row += rows_at_once) {
      const std::int64_t end = std::min(all.row_end, row + rows_at_once);
      pieces.push_back(
          {static_cast<std::int64_t>(i), {row, end, 0, all.column_end}, (end - row) * row_bytes});
    }
  }
  return pieces;
}

std::vector<WeightTensor> tensors_to_write(const WeightSource& source, WeightDType dtype) {
  auto tensors = model_tensors(source.model());
  for (WeightTensor& tensor : tensors) {
    tensor.dtype = source.find(tensor.name)->dtype;
    if (dtype == WeightDType::bf16) tensor.dtype = DType::bf16;
    if (dtype == WeightDType::fp32) tensor.dtype = DType::fp32;
  }
  return tensors;
}

}  // namespace llama3d

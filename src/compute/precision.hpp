#pragma once
// The number formats that a run computes in, as data.

#include <span>
#include <string_view>

#include "base/dtype.hpp"

namespace llama3d {

struct PrecisionRecipe {
  std::string_view name;  ///< the word for people: "bf16"
  DType compute;          ///< parameters, activations and gradients of activations
  /// Of the operands of the layers' linear operations; everywhere else they are `compute`.
  DType linear_activation, linear_weight, linear_gradient;
};

/// All of them.
std::span<const PrecisionRecipe> precision_recipes();
/// Null for a word that names none.
const PrecisionRecipe* find_precision(std::string_view name);
/// The recipe in which everything is of this type, fp32 or bf16.
const PrecisionRecipe& precision_of(DType compute);

}  // namespace llama3d

#include "compute/precision.hpp"

#include <algorithm>
#include <array>

#include "base/error.hpp"

namespace llama3d {
namespace {

constexpr std::array<PrecisionRecipe, 2> recipes{
    {{"fp32", DType::fp32, DType::fp32, DType::fp32, DType::fp32},
     {"bf16", DType::bf16, DType::bf16, DType::bf16, DType::bf16}}};

}  // namespace

std::span<const PrecisionRecipe> precision_recipes() {
  return recipes;
}

const PrecisionRecipe* find_precision(std::string_view name) {
  const auto found =
      std::find_if(recipes.begin(), recipes.end(), [&](const PrecisionRecipe& r) { return r.name == name; });
  return found == recipes.end() ? nullptr : &*found;
}

const PrecisionRecipe& precision_of(DType compute) {
  for (const PrecisionRecipe& recipe : recipes)
    if (recipe.compute == compute && recipe.linear_activation == compute && recipe.linear_weight == compute &&
        recipe.linear_gradient == compute)
      return recipe;
  throw ContractViolation(fmt::format("no recipe computes in {} throughout", name_of(compute)));
}

}  // namespace llama3d

#pragma once

#include <array>
#include <string_view>

namespace llama3d {

/// A way of splitting the work over ranks.
enum class Axis {
  tensor,    ///< every layer
  context,   ///< the tokens of a sequence
  pipeline,  ///< the layers, into stages
  data,      ///< the batch, over replicas
};

/// In the order of world ranks, innermost first: tensor-parallel neighbours are neighbours in the world and
/// so share a node.
inline constexpr std::array all_axes{Axis::tensor, Axis::context, Axis::data, Axis::pipeline};

/// Those whose groups work together, by one communicator each; the pipeline's only send and receive.
inline constexpr std::array collective_axes{Axis::tensor, Axis::context, Axis::data};

/// "tp", "cp", "pp", "dp": the names of labels begin with it, and attributes are called so.
constexpr std::string_view name_of(Axis axis) {
  switch (axis) {
    case Axis::tensor: return "tp";
    case Axis::context: return "cp";
    case Axis::pipeline: return "pp";
    case Axis::data: return "dp";
  }
  return "?";
}

}  // namespace llama3d

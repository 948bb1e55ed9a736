#pragma once
// Every communication of a training step, by name.

#include "comm/label.hpp"

namespace llama3d::labels {

// clang-format off
// Tensor parallel, over the tp group.
inline constexpr Label tp_all_gather_input{"tp.all_gather.input", true};  ///< norm output into a column-parallel GEMM
inline constexpr Label tp_reduce_scatter_output{"tp.reduce_scatter.output", true};  ///< row-parallel GEMM's partial sums
inline constexpr Label tp_all_gather_gradient{"tp.all_gather.gradient", true};  ///< gradient into a row-parallel GEMM
inline constexpr Label tp_reduce_scatter_gradient{"tp.reduce_scatter.gradient", true};  ///< partial input gradients
inline constexpr Label tp_embedding{"tp.embedding"};                      ///< partial embeddings and their gradients
inline constexpr Label tp_loss{"tp.loss"};                                ///< softmax statistics of vocabulary shards
inline constexpr Label tp_logits{"tp.all_gather.logits"};                 ///< of the next tokens, every vocabulary shard's
inline constexpr Label tp_tokens{"tp.tokens"};                            ///< the next tokens, once chosen
inline constexpr Label tp_norm_gradients{"tp.norm_gradients"};            ///< norm weights' partial gradients

// Pipeline parallel, point to point.
inline constexpr Label pp_activation{"pp.activation"};  ///< residual stream to the next stage
inline constexpr Label pp_gradient{"pp.gradient"};      ///< its gradient to the previous stage
inline constexpr Label pp_tied_embedding{"pp.tied_embedding"};  ///< gradients of a weight on two stages

// Data parallel, over the dp group.
inline constexpr Label dp_reduce_gradients{"dp.reduce_scatter.gradients"};
inline constexpr Label dp_gather_parameters{"dp.all_gather.parameters"};

// The whole world.
inline constexpr Label world_totals{"world.totals"};  ///< loss, targets and squared gradient norm

// Small agreements between the hosts, see ControlPlane.
inline constexpr Label control_broadcast{"control.broadcast"};
inline constexpr Label control_gather{"control.all_gather"};
inline constexpr Label control_max{"control.all_max"};
inline constexpr Label control_barrier{"control.barrier"};
inline constexpr Label control_connect{"control.connect"};  ///< the ranks' first contact
inline constexpr Label control_register{"control.register"};  ///< of memory that will be moved often

// clang-format on

}  // namespace llama3d::labels

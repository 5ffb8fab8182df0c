#pragma once

// From the registry to a backend's table: an entry for each registered loss, in their order, and what a loss says of
// itself whoever computes it.

#include <iterator>
#include <type_traits>
#include <utility>

#include "../backend.h"
#include "registry.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** A formula's parameters, of which it may have none. A requires-expression in a function is too much for nvcc. */
template <class Formula, class = void>
struct Parameters {
  static constexpr const char* const* names = nullptr;
  static constexpr int count = 0;
};
template <class Formula>
struct Parameters<Formula, std::void_t<decltype(Formula::parameters)>> {
  static constexpr const char* const* names = Formula::parameters;
  static constexpr int count = static_cast<int>(std::size(Formula::parameters));
};

template <class Formula>
constexpr LossInfo info_of() {
  return {Formula::name, kKindNames[static_cast<int>(Formula::kind)], Parameters<Formula>::names,
          Parameters<Formula>::count};
}

/** Rows of a unit of work: 1, or the splits of a row group. */
template <class Formula>
int64_t rows_per_unit(const Evaluation& call) {
  if constexpr (Formula::kind == Kind::row_group) {
    return Formula(call.parameters, call.classes).splits;
  } else {
    return 1;
  }
}

/** What `mean` divides by, from Σ weight[y] over the rows that count. */
template <class Formula>
double denominator(const Evaluation& call, double weights) {
  const auto rows = static_cast<double>(call.rows());
  if constexpr (Formula::kind == Kind::row_map) {
    return 1;
  } else {
    switch (Formula::denominator) {
      case Denominator::weights:
        return call.indices != nullptr && !call.dense_by_index ? weights : rows;
      case Denominator::elements:
        return rows * static_cast<double>(call.classes);
      case Denominator::samples:
        return rows / static_cast<double>(rows_per_unit<Formula>(call));
      case Denominator::rows:
        return rows;
    }
    return rows;
  }
}

using Places = std::make_integer_sequence<int, kRegistrySize>;

template <int... places>
constexpr int count_losses(std::integer_sequence<int, places...>) {
  return (static_cast<int>(Registered<places>::present) + ...);
}
inline constexpr int kLossCount = count_losses(Places{});

/** EntryOf<place>::entry() of each place that a loss took. */
template <class Entry>
struct LossTable {
  Entry losses[kLossCount] = {};
};

template <class Entry, template <int place> class EntryOf, int... places>
constexpr LossTable<Entry> loss_table(std::integer_sequence<int, places...>) {
  LossTable<Entry> table;
  int next = 0;
  const auto put = [&](auto place) {
    if constexpr (Registered<place.value>::present) table.losses[next++] = EntryOf<place.value>::entry();
  };
  (put(std::integral_constant<int, places>{}), ...);
  return table;
}

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal

#include "arena.h"

#include <cstdint>

namespace surprisal {

Arena& Arena::local() {
  thread_local Arena arena;
  return arena;
}

void Arena::reserve(size_t bytes) {
  used_ = 0;
  if (bytes <= capacity_) return;
  memory_.reset();  // before the new one: the old content is not needed
  capacity_ = 0;
  memory_.reset(new std::byte[bytes + kAlignment]);
  const auto address = reinterpret_cast<uintptr_t>(memory_.get());
  base_ = memory_.get() + ((kAlignment - address % kAlignment) % kAlignment);
  capacity_ = bytes;
}

}  // namespace surprisal

#pragma once

// What calls can run on: the CPU, and the GPUs that CUDA finds where this build has its backend.

#include <string>
#include <vector>

#include "backend.h"

namespace surprisal {

/** A GPU, as the user sees it. */
struct CudaDevice {
  std::string name;
  double memory;  // bytes
  std::string capability;
};

/** The GPUs; where there are none, `unavailable` says why and what to do. */
struct CudaDevices {
  std::vector<CudaDevice> devices;
  std::string unavailable;
};

const CudaDevices& cuda_devices();

/** Of a call's device: kCpu, or a GPU's number. Throws DeviceError where there is no such GPU. */
const Backend& backend_of(int device);

}  // namespace surprisal

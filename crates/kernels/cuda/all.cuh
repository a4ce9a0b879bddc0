// Every file of kernels.
#include "activation.cu"
#include "heads.cu"
#include "norm.cu"

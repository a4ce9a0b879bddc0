// Every file of kernels.
#include "activation.cu"
#include "attention.cu"
#include "heads.cu"
#include "norm.cu"

// Every file of kernels.
#include "activation.cu"
#include "attention.cu"
#include "conv.cu"
#include "delta.cu"
#include "gate.cu"
#include "heads.cu"
#include "norm.cu"

/* From the structs of a layout to the simulator's own, and back. */
#ifndef RKLLM_SIM_ABI_H
#define RKLLM_SIM_ABI_H

#include "rkllm.h"
#include "sim.h"

RKLLMParam abi_defaults(void);
void abi_settings(const RKLLMParam *param, struct settings *out);
/* Copies everything that the run needs. NULL, and the reason in `why`, if the call makes no sense. */
struct request *abi_request(struct handle *h, const RKLLMInput *input, const RKLLMInferParam *infer, void *userdata,
                            const char **why);

#endif

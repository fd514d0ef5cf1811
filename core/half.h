/* half.h: float16 and bfloat16, the bits of a uint16_t, to and from float32. Each conversion is IEEE 754's: exact, or
 * rounded to nearest, ties to even; NaN stays NaN. */
#ifndef GEUL_HALF_H
#define GEUL_HALF_H

#include <stdint.h>

float geul_f16_to_f32(uint16_t h);
uint16_t geul_f32_to_f16(float f);
float geul_bf16_to_f32(uint16_t h);
uint16_t geul_f32_to_bf16(float f);

/* The same for n values as files and tensors hold them: little-endian, 2 bytes each, aligned or not. */
void geul_f16_decode(const uint8_t *src, float *dst, int64_t n);
void geul_f16_encode(const float *src, uint8_t *dst, int64_t n);
void geul_bf16_decode(const uint8_t *src, float *dst, int64_t n);
void geul_bf16_encode(const float *src, uint8_t *dst, int64_t n);

#endif

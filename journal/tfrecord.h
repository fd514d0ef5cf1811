/* tfrecord.h: the framing of TensorFlow's record files: length, checksum of the length, data, checksum of the data. */
#ifndef GEUL_TFRECORD_H
#define GEUL_TFRECORD_H

#include "journal/log_text.h"

/* CRC-32C (Castagnoli; RFC 3720, B.4) of n bytes. */
uint32_t geul_crc32c(const void *data, size_t n);
/* The checksum as it is in records: rotated by 15 bits and offset, so that a checksum of data with checksums in it is
 * still useful. */
uint32_t geul_tfrecord_mask(uint32_t crc);
/* Adds one record with n bytes of data. */
void geul_tfrecord_add(struct geul_log_text *t, const void *data, size_t n);

#endif

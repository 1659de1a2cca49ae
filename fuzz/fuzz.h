/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the fuzz targets share. Each is a program of its own, in two builds: with libFuzzer (make fuzz,
 * clang), and with driver.c, which only reads files (make check, any compiler).
 */
#ifndef RBXJ_FUZZ_FUZZ_H
#define RBXJ_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* libFuzzer's names. */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);

/* The input as a file in memory: fills path, returns the descriptor. */
int input_file(const uint8_t *data, size_t size, char path[40]);

/* A mutator of LMDB data files (data_file.c). */
size_t data_file_mutate(uint8_t *data, size_t size, size_t max, unsigned seed);

/* ---- seeds.c, seeds_text.c ---- */

/* Writes a seed to TARGET/NAME below the seeds' directory, which is the working directory. */
void seed_write(const char *target, const char *name, const void *bytes, size_t len);
void seed_texts(void);

#endif

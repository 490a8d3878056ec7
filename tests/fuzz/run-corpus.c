/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/*
 * The fuzz targets without a fuzzer: every file of the folders given, then random changes of them,
 * the same ones each time, for at most a few seconds. With a file: that one only.
 */

#define MUTATIONS_MAX 20000
#define SECONDS_MAX   3
#define INPUT_MAX     4096
#define SEED          20240229

static const guint8 *current;
static gsize current_len;

/* Leaves the input behind, so that it can become a file of the corpus. */
static void
on_abort (int signal_number)
{
  int fd = open ("crash-input", O_WRONLY | O_CREAT | O_TRUNC, 0644);

  if (fd >= 0 && write (fd, current, current_len) == (gssize) current_len)
    {
      static const char text[] = "the input is in ./crash-input\n";

      if (write (STDERR_FILENO, text, sizeof text - 1) < 0)
        _exit (1);
    }
  signal (signal_number, SIG_DFL);
  raise (signal_number);
}

static void
run_one (const guint8 *data, gsize len)
{
  /* Exactly as long, so that a read past the end is seen. */
  g_autofree guint8 *copy = g_memdup2 (data, len);

  current = copy;
  current_len = len;
  LLVMFuzzerTestOneInput (copy, len);
  current = NULL;
  current_len = 0;
}

static void
mutate (GByteArray *input, GPtrArray *corpus, GRand *rand)
{
  guint at = g_rand_int_range (rand, 0, (gint32) input->len + 1);
  const GByteArray *other = corpus->pdata[g_rand_int_range (rand, 0, (gint32) corpus->len)];
  guint8 byte = (guint8) g_rand_int (rand);

  switch (g_rand_int_range (rand, 0, 6))
    {
    case 0: /* one bit */
      if (at < input->len)
        input->data[at] ^= 1 << byte % 8;
      break;
    case 1: /* one byte */
      if (at < input->len)
        input->data[at] = byte;
      break;
    case 2: /* one more */
      g_byte_array_append (input, &byte, 1);
      if (at < input->len)
        memmove (input->data + at + 1, input->data + at, input->len - at - 1);
      break;
    case 3: /* a few less */
      if (at < input->len)
        g_byte_array_remove_range (input, at, MIN (input->len - at, 1u + byte % 4));
      break;
    case 4: /* cut off */
      g_byte_array_set_size (input, at);
      break;
    default: /* the rest of another one */
      g_byte_array_set_size (input, at);
      if (other->len > byte)
        g_byte_array_append (input, other->data + byte, other->len - byte);
      break;
    }
  if (input->len > INPUT_MAX)
    g_byte_array_set_size (input, INPUT_MAX);
}

static guint
run_mutations (GPtrArray *corpus)
{
  gint64 end_us = g_get_monotonic_time () + SECONDS_MAX * G_USEC_PER_SEC;
  g_autoptr (GRand) rand = g_rand_new_with_seed (SEED);
  guint n = 0;

  for (; n < MUTATIONS_MAX && g_get_monotonic_time () < end_us; n++)
    {
      const GByteArray *seed = corpus->pdata[g_rand_int_range (rand, 0, (gint32) corpus->len)];
      g_autoptr (GByteArray) input = g_byte_array_new ();

      g_byte_array_append (input, seed->data, seed->len);
      for (gint k = g_rand_int_range (rand, 1, 6); k > 0; k--)
        mutate (input, corpus, rand);
      run_one (input->data, input->len);
    }
  return n;
}

static gint
compare_names (gconstpointer a, gconstpointer b)
{
  return strcmp (*(const char *const *) a, *(const char *const *) b);
}

static GPtrArray *
list_folder (const char *path)
{
  g_autoptr (GDir) folder = g_dir_open (path, 0, NULL);
  GPtrArray *files = g_ptr_array_new_with_free_func (g_free);
  const char *name;

  while (folder != NULL && (name = g_dir_read_name (folder)) != NULL)
    g_ptr_array_add (files, g_build_filename (path, name, NULL));
  g_ptr_array_sort (files, compare_names);
  return files;
}

static gboolean
run_file (const char *path, GPtrArray *corpus)
{
  g_autoptr (GError) error = NULL;
  char *data;
  gsize len;

  if (!g_file_get_contents (path, &data, &len, &error))
    {
      fprintf (stderr, "%s\n", error->message);
      return FALSE;
    }
  g_ptr_array_add (corpus, g_byte_array_new_take ((guint8 *) data, len));
  run_one ((const guint8 *) data, len);
  return TRUE;
}

int
main (int argc, char **argv)
{
  g_autoptr (GPtrArray) corpus
      = g_ptr_array_new_with_free_func ((GDestroyNotify) g_byte_array_unref);
  guint mutated = 0;

  if (argc != 2)
    {
      fprintf (stderr, "usage: %s FOLDER|FILE\n", argv[0]);
      return 2;
    }
  signal (SIGABRT, on_abort);
  if (g_file_test (argv[1], G_FILE_TEST_IS_DIR))
    {
      g_autoptr (GPtrArray) files = list_folder (argv[1]);

      for (guint i = 0; i < files->len; i++)
        if (!run_file (files->pdata[i], corpus))
          return 1;
      if (corpus->len == 0)
        {
          fprintf (stderr, "%s: no files\n", argv[1]);
          return 1;
        }
      mutated = run_mutations (corpus);
    }
  else if (!run_file (argv[1], corpus))
    return 1;
  printf ("%u files, %u changed ones (seed %d)\n", corpus->len, mutated, SEED);
  return 0;
}

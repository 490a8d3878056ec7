/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-options.h"

#include <string.h>

void
sim_random_init (SimRandom *self, guint64 seed)
{
  *self = (SimRandom){ .seed = seed, .used = sizeof self->block };
}

static gboolean
next_block (SimRandom *self)
{
  guint8 input[16];

  mi_put_u32 (input, (guint32) self->seed);
  mi_put_u32 (input + 4, (guint32) (self->seed >> 32));
  mi_put_u32 (input + 8, (guint32) self->counter);
  mi_put_u32 (input + 12, (guint32) (self->counter >> 32));
  self->counter++;
  self->used = 0;
  return mi_crypto_sha256 (input, sizeof input, self->block, NULL);
}

gboolean
sim_random_draw (guint8 *out, gsize len, gpointer user_data)
{
  SimRandom *self = user_data;

  while (len > 0)
    {
      gsize n;

      if (self->used == sizeof self->block && !next_block (self))
        return FALSE;
      n = MIN (len, sizeof self->block - self->used);
      memcpy (out, self->block + self->used, n);
      self->used += n;
      out += n;
      len -= n;
    }
  return TRUE;
}

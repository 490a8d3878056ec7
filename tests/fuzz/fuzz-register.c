/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "fuzz-peer.h"

#include "mi-crypto.h"
#include "mi-register.h"

#include <string.h>

#define DEVICE_KEY_SEED 7
#define OPCODE_INFO     0xa2
#define OPCODE_REGISTER 0x15
#define OPCODE_VERIFIED 0x13

static const guint8 oob[16] = "out-of-band-----";
static const guint8 device_random[16] = "device's random";

typedef struct
{
  guint8 auth_version;
  guint8 io_capability;
  gboolean has_did;
  gboolean key_sent;
  gboolean random_sent;
  gboolean pending;   /* the pending keys are durable */
  gboolean asked;     /* a PERSIST is outstanding */
  MiKeyState state;   /* ... of this state */
  gboolean confirmed; /* the current ones are durable */
  guint8 public_key[64];
} Device;

/* A point of the curve; made once, because it is slow. */
static const guint8 *
device_public_key (void)
{
  static guint8 point[64];
  static gboolean made;
  guint32 seed = DEVICE_KEY_SEED;

  if (!made)
    {
      g_autoptr (MiEcKey) key = mi_ec_key_new (fuzz_random, &seed, NULL);

      g_assert (key != NULL && mi_ec_key_public (key, point, NULL));
      made = TRUE;
    }
  return point;
}

/* Confirmation and random of a device that knows the out-of-band value, and the shared secret. */
static void
answer_oob (FuzzPeer *self)
{
  Device *device = self->user_data;
  guint8 both[32], secret[32], mac[32];
  g_autoptr (MiEcKey) key = NULL;
  guint32 seed = DEVICE_KEY_SEED;

  memcpy (both, device_random, 16);
  memcpy (both + 16, oob, 16);
  if (self->type == MI_MESSAGE_PUBLIC_KEY && self->len == 64)
    {
      key = mi_ec_key_new (fuzz_random, &seed, NULL);
      g_assert (key != NULL && mi_ec_key_agree (key, self->message, secret, NULL));
      g_assert (mi_crypto_hmac_sha256 (secret, sizeof secret, both, sizeof both, mac, NULL));
      fuzz_peer_send (self, MI_MESSAGE_DEVICE_CONFIRMATION, mac, sizeof mac);
    }
  else if (self->type == MI_MESSAGE_APP_CONFIRMATION)
    {
      device->random_sent = TRUE;
      fuzz_peer_send (self, MI_MESSAGE_DEVICE_RANDOM, device_random, sizeof device_random);
    }
}

static void
answer (FuzzPeer *self)
{
  Device *device = self->user_data;
  guint8 info[24] = "\0\0\0\0\0blt.6.1fg3jsorosg00";

  info[0] = device->auth_version;
  info[2] = device->io_capability;
  if (self->opcode == OPCODE_INFO)
    fuzz_peer_send (self, MI_MESSAGE_PASS_THROUGH, info, device->has_did ? 24 : 4);
  else if (self->opcode == OPCODE_REGISTER && !device->key_sent)
    {
      device->key_sent = TRUE;
      fuzz_peer_send (self, MI_MESSAGE_PUBLIC_KEY, device_public_key (), 64);
    }
  else if (self->opcode == OPCODE_REGISTER && device->io_capability != 0 && !device->random_sent)
    answer_oob (self);
  else if (self->opcode == OPCODE_REGISTER)
    fuzz_peer_persisted (self);
  else if (self->opcode == OPCODE_VERIFIED
           && !(device->asked && device->state == MI_KEY_STATE_CURRENT))
    fuzz_peer_opcode (self, 0x11);
  else
    fuzz_peer_persisted (self);
}

/* Keys are durable before the word that makes the device take them, and before DONE. */
static void
check (FuzzPeer *self, const MiEffect *effect)
{
  Device *device = self->user_data;

  if (effect->kind == MI_EFFECT_PERSIST)
    {
      device->asked = TRUE;
      device->state = effect->key_state;
      if (effect->key_state == MI_KEY_STATE_CURRENT)
        g_assert (device->pending);
    }
  if (effect->kind == MI_EFFECT_WRITE && effect->channel == MI_CHANNEL_CONTROL
      && effect->data[0] == OPCODE_VERIFIED)
    g_assert (device->pending && !(device->asked && device->state == MI_KEY_STATE_PENDING));
  if (effect->kind == MI_EFFECT_DONE)
    g_assert (device->confirmed);
}

static gboolean
on_persisted (FuzzPeer *self)
{
  Device *device = self->user_data;

  if (!device->asked)
    return FALSE;
  device->asked = FALSE;
  device->pending |= device->state == MI_KEY_STATE_PENDING;
  device->confirmed |= device->state == MI_KEY_STATE_CURRENT;
  return TRUE;
}

int
LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  MiReader in = MI_READER (data, size);
  guint8 flags = mi_reader_u8 (&in);
  Device device = { .auth_version = flags & 2 ? 2 : 1,
                    .has_did = (flags & 4) != 0,
                    .io_capability = flags & 32 ? 1 : 0 };
  guint32 seed = 1;
  FuzzPeer peer;
  MiRegisterOptions options = {
    .sizes = &peer.host_sizes,
    .random = fuzz_random,
    .random_data = &seed,
    .explore = flags & 1,
    .can_credential = (flags & 8) == 0,
    .did = flags & 16 ? (const guint8 *) "\0blt.1.another-did--" : NULL,
    .oob = flags & 32 ? oob : NULL,
    .oob_method = 1,
  };

  fuzz_begin ();
  fuzz_peer_init (&peer, &in);
  peer.answer = answer;
  peer.check = check;
  peer.persisted = on_persisted;
  peer.user_data = &device;
  fuzz_peer_play (&peer, mi_register_new (&options), &in);
  return 0;
}

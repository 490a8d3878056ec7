/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "fuzz-peer.h"

#include "mi-crypto.h"
#include "mi-login.h"

#include <string.h>

static const guint8 token[MI_TOKEN_LEN] = "fuzzed token";
static const guint8 device_random[MI_RANDOM_LEN] = "device's random";

/* What a device that knows the token says next, as far as the host has come. */
static void
answer (FuzzPeer *self)
{
  guint8 both[2 * MI_RANDOM_LEN], mac[32];
  gboolean *confirm = self->user_data;
  MiSession session;

  if (self->type == MI_MESSAGE_APP_CONFIRMATION)
    fuzz_peer_opcode (self, 0x21);
  else if (self->type == MI_MESSAGE_APP_RANDOM && self->len == MI_RANDOM_LEN && !*confirm)
    {
      fuzz_peer_send (self, MI_MESSAGE_DEVICE_RANDOM, device_random, sizeof device_random);
      *confirm = TRUE;
    }
  else if (self->type == MI_MESSAGE_APP_RANDOM && self->len == MI_RANDOM_LEN)
    {
      g_assert (mi_session_derive (&session, token, self->message, device_random, NULL));
      memcpy (both, device_random, MI_RANDOM_LEN);
      memcpy (both + MI_RANDOM_LEN, self->message, MI_RANDOM_LEN);
      g_assert (mi_crypto_hmac_sha256 (session.dev_key, 16, both, sizeof both, mac, NULL));
      fuzz_peer_send (self, MI_MESSAGE_DEVICE_CONFIRMATION, mac, sizeof mac);
    }
}

/* Messages of an established session, of any length and counter. */
static void
open_session (MiReader in)
{
  static const guint8 app_random[MI_RANDOM_LEN];
  gsize len = mi_reader_left (&in);
  g_autofree guint8 *exact = g_memdup2 (mi_reader_take (&in, len), len);
  g_autofree guint8 *out = g_malloc (len + 6);
  MiSession session;

  g_assert (mi_session_derive (&session, token, app_random, device_random, NULL));
  session.received = len > 3 ? exact[3] << 8 | exact[2] : 0;
  if (!mi_session_open (&session, exact, len, out, NULL))
    return;
  g_assert (!mi_session_open (&session, exact, len, out, NULL));
}

int
LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  MiReader in = MI_READER (data, size);
  gboolean explore = mi_reader_u8 (&in) & 1;
  gboolean confirm = FALSE;
  guint32 seed = 1;
  FuzzPeer peer;

  fuzz_begin ();
  open_session (in);
  fuzz_peer_init (&peer, &in);
  peer.answer = answer;
  peer.user_data = &confirm;
  fuzz_peer_play (&peer, mi_login_new (&peer.host_sizes, token, fuzz_random, &seed, explore), &in);
  return 0;
}

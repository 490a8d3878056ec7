/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "fuzz-peer.h"

#include "mi-info.h"

static void
answer (FuzzPeer *self)
{
  static const guint8 info[24] = "\2\0\0\0\0blt.6.1fg3jsorosg00";

  fuzz_peer_send (self, MI_MESSAGE_PASS_THROUGH, info, sizeof info);
}

static void
parse (MiReader in)
{
  gsize len = mi_reader_left (&in);
  g_autofree guint8 *exact = g_memdup2 (mi_reader_take (&in, len), len);
  g_autofree char *text = NULL;
  guint8 did[MI_DID_LEN];
  MiDeviceInfo info;

  if (!mi_device_info_parse (exact, len, &info, NULL))
    return;
  text = mi_did_to_text (info.did);
  g_assert (g_str_is_ascii (text));
  mi_did_from_text (text, did);
}

int
LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  MiReader in = MI_READER (data, size);
  gboolean explore = mi_reader_u8 (&in) & 1;
  FuzzPeer peer;

  fuzz_begin ();
  parse (in);
  fuzz_peer_init (&peer, &in);
  peer.answer = answer;
  fuzz_peer_play (&peer, mi_info_new (&peer.host_sizes, explore), &in);
  return 0;
}

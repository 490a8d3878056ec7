/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "mi-info.h"

G_BEGIN_DECLS

/**
 * MiRegisterOptions:
 * @sizes: borrowed, of this connection
 * @random: private key (32 bytes) and the six letters of a fresh DID come from here
 * @explore: try the size exploration first
 * @can_credential: somebody can answer NEED_CREDENTIAL; without it an authentication version 2
 *   ends after the device info with %MI_ERROR_CREDENTIAL_NEEDED, before any key is sent
 * @did: (nullable): 20 bytes sent instead of the device's or a fresh one; for tests
 * @oob: (nullable): 16 bytes of out-of-band value; @oob_method: bits 8..15 of the start opcode
 */
typedef struct
{
  MiSizes *sizes;
  MiRandomFunc random;
  gpointer random_data;
  gboolean explore;
  gboolean can_credential;
  const guint8 *did;
  const guint8 *oob;
  guint8 oob_method;
} MiRegisterOptions;

/**
 * mi_register_new:
 *
 * Registration, versions 1 and 2 (protocol/registration.md sections 3, 4, 9), beginning with the
 * device info. PERSIST pending comes before anything that can make the device accept the keys
 * (version 2: before NEED_CREDENTIAL and once more with the DID, before opcode 13); PERSIST current
 * after opcode 11, DONE after that is durable. After a failure the pending keys stay the caller's.
 */
MiProcedure *mi_register_new (const MiRegisterOptions *options);

/* After the device info has been read: (transfer none) (nullable) */
const MiDeviceInfo *mi_register_get_info (MiProcedure *self);
/* After DONE: (transfer none) */
const MiKeys *mi_register_get_keys (MiProcedure *self);

/**
 * mi_credential_verify:
 * @root: public key of the root, X || Y
 * @keys: bind key the credential must be for; if it has a DID, the credential's must be the same
 *
 * Certificate by @root and valid at the credential's own UTC (never the host's clock), signature
 * over DID || bind key || UTC. Returns: %FALSE with %MI_ERROR_CREDENTIAL_REFUSED
 */
gboolean mi_credential_verify (const MiCredential *credential, const guint8 root[64],
                               const MiKeys *keys, GError **error);

G_END_DECLS

/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <gio/gio.h>

#include "mi-procedure.h"

G_BEGIN_DECLS

/* Longest answer taken; a certificate of 512 bytes fits several times. */
#define MITHERM_CREDENTIAL_MAX (16 * 1024)

/**
 * MithermCredentialRequest:
 * @address: "A4:C1:38:00:00:01"
 * @model: the vendor's model string, or what is known in its place; may be empty
 * @keys: borrowed; the DID is asked for unless @keys has one
 * @limit_ms: time left
 *
 * What an agent is asked (docs/dbus.md, "Credential agents").
 */
typedef struct
{
  const char *address;
  const char *model;
  guint16 product_id;
  const MiKeys *keys;
  guint limit_ms;
} MithermCredentialRequest;

/* (transfer full): one line of JSON with secrets: mitherm_secret_free() */
char *mitherm_credential_request_to_json (const MithermCredentialRequest *request);

/**
 * mitherm_credential_from_json:
 * @text: @len bytes from an agent: did, signature, utc, certificate; or error and message
 *
 * Says nothing about whether the credential is right: mi_credential_verify(). Its certificate
 * belongs to it: mitherm_credential_free().
 *
 * Returns: (transfer full): or %NULL with MITHERM_ERROR_CREDENTIAL_REFUSED
 */
MiCredential *mitherm_credential_from_json (const char *text, gsize len, GError **error);
void mitherm_credential_free (MiCredential *self);

G_END_DECLS

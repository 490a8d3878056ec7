/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>
#include <json-glib/json-glib.h>

G_BEGIN_DECLS

/*
 * JSON in and out, without I/O: the request of the daemon, the answer to it, the two requests to
 * the service and what it answers (protocol/registration.md section 6).
 */

#define CLOUD_TOKEN_LEN           12
#define CLOUD_BIND_KEY_LEN        16
#define CLOUD_SIGNATURE_LEN       64
#define CLOUD_MAX_DID_LEN         20
#define CLOUD_MAX_CERTIFICATE_LEN 512
/* Both for what stands on standard input and for an answer of the service */
#define CLOUD_MAX_MESSAGE 65536

typedef struct
{
  char *address; /* upper case, with colons */
  char *model;
  char *did;         /* NULL: the service gives one */
  char *token;       /* lower-case hex */
  char *bind_key;    /* lower-case hex */
  gint64 timeout_ms; /* from the moment the request was written; -1: not told */
} CloudRequest;

typedef struct
{
  char *did;
  guint8 signature[CLOUD_SIGNATURE_LEN];
  guint32 utc;         /* seconds since 1970 */
  GBytes *certificate; /* DER */
} CloudCredential;

/* CLOUD_ERROR_BAD_REQUEST unless all of it is there and well formed. Members that are not known are
   ignored. */
CloudRequest *cloud_request_parse (const char *text, gsize len, GError **error);
/* Overwrites the keys. */
void cloud_request_free (CloudRequest *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (CloudRequest, cloud_request_free)

void cloud_credential_free (CloudCredential *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (CloudCredential, cloud_credential_free)

/* (transfer full): JSON for field "data" of /app/device/bltapplydid */
char *cloud_request_apply_json (const CloudRequest *self);
/* (transfer full): JSON for field "data" of /app/v2/device/ble_standard_bind */
char *cloud_request_bind_json (const CloudRequest *self, const char *did);

/*
 * The object `result` of an answer.
 *
 * Returns: (transfer full) (nullable): CLOUD_ERROR_MALFORMED if it is no such answer; if `code` is
 * not 0: CLOUD_ERROR_EXPIRED_SESSION or CLOUD_ERROR_WRONG_REGION if the message says so, else
 *   CLOUD_ERROR_REFUSED, each with the service's message
 */
JsonObject *cloud_answer_parse (const char *text, gsize len, GError **error);
/* (transfer full) (nullable): the DID given; CLOUD_ERROR_REFUSED if @wanted is not NULL and differs
 */
char *cloud_answer_take_did (JsonObject *result, const char *wanted, GError **error);
/* (transfer full) (nullable): all members checked for their form, none for being genuine */
CloudCredential *cloud_answer_take_credential (JsonObject *result, const char *did, GError **error);

/* (transfer full): one line of JSON for standard output */
char *cloud_credential_to_json (const CloudCredential *self);
char *cloud_error_to_json (const GError *error);

G_END_DECLS

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "cloud-client.h"

#include "cloud-envelope.h"
#include "cloud-error.h"
#include "cloud-text.h"

#include <curl/curl.h>

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#define PATH_APPLY "/app/device/bltapplydid"
#define PATH_BIND  "/app/v2/device/ble_standard_bind"

struct _CloudClient
{
  const CloudSession *session;
  char *base_url;
  gint64 deadline_us;
  CURL *curl;
  struct curl_slist *headers;
  GString *answer;
  gboolean too_long;
  char curl_message[CURL_ERROR_SIZE];
};

static size_t
on_data (char *data, size_t size, size_t n, void *user_data)
{
  CloudClient *self = user_data;

  if (n > CLOUD_MAX_MESSAGE - self->answer->len) /* size is always 1 */
    {
      self->too_long = TRUE;
      return 0;
    }
  g_string_append_len (self->answer, data, (gssize) n);
  return size * n;
}

/* The host's own language and zone are nobody's business. */
static gboolean
set_cookies (CloudClient *self)
{
  g_autoptr (CloudSecret) cookies = g_strdup_printf (
      "userId=%s; serviceToken=%s; yetAnotherServiceToken=%s; locale=en_GB; timezone=GMT+00:00; "
      "is_daylight=0; dst_offset=0; channel=MI_APP_STORE",
      self->session->user_id, self->session->service_token, self->session->service_token);

  return curl_easy_setopt (self->curl, CURLOPT_COOKIE, cookies) == CURLE_OK;
}

static gboolean
set_headers (CloudClient *self)
{
  static const char *const lines[] = {
    "Content-Type: application/x-www-form-urlencoded",
    "Accept-Encoding: identity",
    "MIOT-ENCRYPT-ALGORITHM: ENCRYPT-RC4",
    "X-XIAOMI-PROTOCAL-FLAG-CLI: PROTOCAL-HTTP2",
  };

  for (gsize i = 0; i < G_N_ELEMENTS (lines); i++)
    {
      struct curl_slist *longer = curl_slist_append (self->headers, lines[i]);

      if (longer == NULL)
        return FALSE;
      self->headers = longer;
    }
  return curl_easy_setopt (self->curl, CURLOPT_HTTPHEADER, self->headers) == CURLE_OK;
}

/* With an authority of the user's, only that one is trusted. */
static gboolean
set_trust (CloudClient *self, const char *ca_file)
{
  CURL *curl = self->curl;

  if (ca_file != NULL
      && (curl_easy_setopt (curl, CURLOPT_CAINFO, ca_file) != CURLE_OK
          || curl_easy_setopt (curl, CURLOPT_CAPATH, NULL) != CURLE_OK))
    return FALSE;
  return curl_easy_setopt (curl, CURLOPT_SSL_VERIFYPEER, 1L) == CURLE_OK
         && curl_easy_setopt (curl, CURLOPT_SSL_VERIFYHOST, 2L) == CURLE_OK
         && curl_easy_setopt (curl, CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2) == CURLE_OK;
}

static gboolean
set_transport (CloudClient *self)
{
  CURL *curl = self->curl;

#if LIBCURL_VERSION_NUM >= 0x075500
  if (curl_easy_setopt (curl, CURLOPT_PROTOCOLS_STR, "https") != CURLE_OK)
    return FALSE;
#else
  if (curl_easy_setopt (curl, CURLOPT_PROTOCOLS, (long) CURLPROTO_HTTPS) != CURLE_OK)
    return FALSE;
#endif
  return curl_easy_setopt (curl, CURLOPT_FOLLOWLOCATION, 0L) == CURLE_OK
         && curl_easy_setopt (curl, CURLOPT_PROXY, "") == CURLE_OK
         && curl_easy_setopt (curl, CURLOPT_NOSIGNAL, 1L) == CURLE_OK
         && curl_easy_setopt (curl, CURLOPT_USERAGENT, "mitherm-cloud/" MITHERM_VERSION) == CURLE_OK
         && curl_easy_setopt (curl, CURLOPT_ERRORBUFFER, self->curl_message) == CURLE_OK
         && curl_easy_setopt (curl, CURLOPT_WRITEFUNCTION, on_data) == CURLE_OK
         && curl_easy_setopt (curl, CURLOPT_WRITEDATA, self) == CURLE_OK;
}

CloudClient *
cloud_client_new (const CloudSession *session, const char *base_url, const char *ca_file,
                  gint64 deadline_us, GError **error)
{
  g_autoptr (CloudClient) self = g_new0 (CloudClient, 1);

  self->session = session;
  self->base_url = base_url == NULL ? cloud_session_dup_base_url (session) : g_strdup (base_url);
  self->deadline_us = deadline_us;
  self->answer = g_string_new (NULL);
  if (curl_global_init (CURL_GLOBAL_DEFAULT) == CURLE_OK)
    self->curl = curl_easy_init ();
  if (self->curl != NULL && set_transport (self) && set_trust (self, ca_file) && set_headers (self)
      && set_cookies (self))
    return g_steal_pointer (&self);
  g_set_error (error, CLOUD_ERROR, CLOUD_ERROR_NETWORK, "libcurl cannot be set up for HTTPS");
  return NULL;
}

static void
clear_answer (CloudClient *self)
{
  explicit_bzero (self->answer->str, self->answer->len);
  g_string_truncate (self->answer, 0);
  self->too_long = FALSE;
}

void
cloud_client_free (CloudClient *self)
{
  clear_answer (self);
  g_string_free (self->answer, TRUE);
  if (self->curl != NULL)
    curl_easy_cleanup (self->curl);
  curl_slist_free_all (self->headers);
  g_free (self->base_url);
  g_free (self);
}

static gboolean
timed_out (GError **error)
{
  g_set_error (error, CLOUD_ERROR, CLOUD_ERROR_TIMEOUT,
               "the service did not answer within the thermometer's time");
  return FALSE;
}

static gboolean
judge_transfer (CloudClient *self, CURLcode code, GError **error)
{
  const char *reason
      = self->curl_message[0] != '\0' ? self->curl_message : curl_easy_strerror (code);

  if (code == CURLE_OK)
    return TRUE;
  if (code == CURLE_OPERATION_TIMEDOUT)
    return timed_out (error);
  if (self->too_long)
    g_set_error (error, CLOUD_ERROR, CLOUD_ERROR_MALFORMED, "answer of the service: too long");
  else
    g_set_error (error, CLOUD_ERROR, CLOUD_ERROR_NETWORK, "%s: %s", self->base_url, reason);
  return FALSE;
}

/* Sends the form and fills self->answer. */
static gboolean
post (CloudClient *self, const char *path, const char *form, GError **error)
{
  g_autofree char *url = g_strconcat (self->base_url, path, NULL);
  gint64 left_ms = (self->deadline_us - g_get_monotonic_time ()) / 1000;
  CURL *curl = self->curl;
  gboolean ready;

  clear_answer (self);
  self->curl_message[0] = '\0';
  if (left_ms <= 0)
    return timed_out (error);
  ready = curl_easy_setopt (curl, CURLOPT_URL, url) == CURLE_OK
          && curl_easy_setopt (curl, CURLOPT_POSTFIELDSIZE, (long) strlen (form)) == CURLE_OK
          && curl_easy_setopt (curl, CURLOPT_POSTFIELDS, form) == CURLE_OK
          && curl_easy_setopt (curl, CURLOPT_TIMEOUT_MS, (long) left_ms) == CURLE_OK
          && curl_easy_setopt (curl, CURLOPT_CONNECTTIMEOUT_MS, (long) left_ms) == CURLE_OK;
  return judge_transfer (self, ready ? curl_easy_perform (curl) : CURLE_OUT_OF_MEMORY, error);
}

/* Another host in the answer is told, never followed: it would get the session. */
static gboolean
judge_redirect (CloudClient *self, GError **error)
{
  char *location = NULL;
  g_autoptr (GUri) uri = NULL;
  g_autofree char *host = NULL;

  curl_easy_getinfo (self->curl, CURLINFO_REDIRECT_URL, &location);
  if (location != NULL)
    uri = g_uri_parse (location, G_URI_FLAGS_NONE, NULL);
  host = cloud_text_for_people (uri != NULL && g_uri_get_host (uri) != NULL ? g_uri_get_host (uri)
                                                                            : "somewhere else");
  g_set_error (error, CLOUD_ERROR, CLOUD_ERROR_WRONG_REGION,
               "%s sends this account to %s: set Region= in the session file to the account's own",
               self->base_url, host);
  return FALSE;
}

/* The answer is plain if it starts as an object does, else in the envelope of its request. */
static JsonObject *
open_answer (CloudClient *self, CloudEnvelope *envelope, GError **error)
{
  const char *text = self->answer->str;
  g_autofree char *plain = NULL;
  JsonObject *result;
  gsize len = 0;

  while (g_ascii_isspace (*text))
    text++;
  if (*text == '{')
    return cloud_answer_parse (text, self->answer->len - (gsize) (text - self->answer->str), error);
  /* An embedded zero byte would hide what follows it. */
  if (strlen (self->answer->str) == self->answer->len)
    plain = cloud_envelope_decrypt (envelope, text, &len);
  if (plain == NULL)
    {
      g_set_error (error, CLOUD_ERROR, CLOUD_ERROR_MALFORMED,
                   "answer of the service: neither JSON nor base64");
      return NULL;
    }
  result = cloud_answer_parse (plain, len, error);
  explicit_bzero (plain, len);
  return result;
}

/* Fails unless the status is 200; an error page may tell more than its status. */
static gboolean
judge_status (CloudClient *self, CloudEnvelope *envelope, GError **error)
{
  g_autoptr (JsonObject) answer = NULL;
  g_autoptr (GError) told = NULL;
  gboolean is_unknown;
  long status = 0;

  curl_easy_getinfo (self->curl, CURLINFO_RESPONSE_CODE, &status);
  if (status == 200)
    return TRUE;
  if (status >= 300 && status < 400)
    return judge_redirect (self, error);
  is_unknown = status == 401 || status == 403;
  answer = open_answer (self, envelope, &told);
  if (told != NULL && !g_error_matches (told, CLOUD_ERROR, CLOUD_ERROR_MALFORMED)
      && !(is_unknown && g_error_matches (told, CLOUD_ERROR, CLOUD_ERROR_REFUSED)))
    {
      g_propagate_error (error, g_steal_pointer (&told));
      return FALSE;
    }
  if (is_unknown)
    g_set_error (error, CLOUD_ERROR, CLOUD_ERROR_EXPIRED_SESSION,
                 "the service no longer knows this session (HTTP %ld); sign in again and renew the "
                 "session file",
                 status);
  else
    g_set_error (error, CLOUD_ERROR, status >= 500 ? CLOUD_ERROR_NETWORK : CLOUD_ERROR_REFUSED,
                 "the service answered HTTP %ld", status);
  return FALSE;
}

static CloudEnvelope *
new_envelope (CloudClient *self, GError **error)
{
  guint8 random[CLOUD_RANDOM_LEN];
  CloudEnvelope *envelope;

  if (getrandom (random, sizeof random, 0) != (gssize) sizeof random)
    {
      g_set_error (error, CLOUD_ERROR, CLOUD_ERROR_NETWORK, "no random numbers: %s",
                   g_strerror (errno));
      return NULL;
    }
  envelope = cloud_envelope_new (self->session->ssecurity, random, g_get_real_time () / 1000);
  if (envelope == NULL)
    g_set_error (error, CLOUD_ERROR, CLOUD_ERROR_BAD_SESSION, "SSecurity is no base64");
  return envelope;
}

/* (transfer full): the result of one call with @data in the field of that name */
static JsonObject *
call (CloudClient *self, const char *path, const char *data, GError **error)
{
  g_autoptr (CloudEnvelope) envelope = new_envelope (self, error);
  g_autoptr (CloudForm) plain = cloud_form_new ();
  g_autoptr (CloudForm) sealed = NULL;
  g_autoptr (CloudSecret) body = NULL;

  if (envelope == NULL)
    return NULL;
  cloud_form_add (plain, "data", data);
  sealed = cloud_envelope_seal (envelope, "POST", path, plain);
  body = cloud_form_encode (sealed);
  if (!post (self, path, body, error) || !judge_status (self, envelope, error))
    return NULL;
  return open_answer (self, envelope, error);
}

CloudCredential *
cloud_client_fetch (CloudClient *self, const CloudRequest *request, GError **error)
{
  g_autoptr (CloudSecret) apply = cloud_request_apply_json (request);
  g_autoptr (CloudSecret) bind = NULL;
  g_autoptr (JsonObject) applied = call (self, PATH_APPLY, apply, error);
  g_autoptr (JsonObject) bound = NULL;
  g_autofree char *did = NULL;

  if (applied == NULL || (did = cloud_answer_take_did (applied, request->did, error)) == NULL)
    return NULL;
  bind = cloud_request_bind_json (request, did);
  bound = call (self, PATH_BIND, bind, error);
  return bound == NULL ? NULL : cloud_answer_take_credential (bound, did, error);
}

char *
cloud_base_url_parse (const char *text)
{
  g_autoptr (GUri) uri = g_uri_parse (text, G_URI_FLAGS_NONE, NULL);
  const char *path;

  if (uri == NULL || g_strcmp0 (g_uri_get_scheme (uri), "https") != 0
      || g_uri_get_host (uri) == NULL || *g_uri_get_host (uri) == '\0'
      || g_uri_get_userinfo (uri) != NULL || g_uri_get_query (uri) != NULL
      || g_uri_get_fragment (uri) != NULL)
    return NULL;
  path = g_uri_get_path (uri);
  if (*path != '\0' && strcmp (path, "/") != 0 && strcmp (path, "/app") != 0
      && strcmp (path, "/app/") != 0)
    return NULL;
  return g_uri_join (G_URI_FLAGS_NONE, "https", NULL, g_uri_get_host (uri), g_uri_get_port (uri),
                     "", NULL, NULL);
}

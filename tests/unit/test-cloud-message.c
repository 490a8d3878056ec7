/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "cloud-client.h"
#include "cloud-error.h"
#include "cloud-message.h"
#include "cloud-text.h"

#include <string.h>

#define TOKEN    "00112233445566778899aabb"
#define BIND_KEY "ffeeddccbbaa99887766554433221100"
#define GOOD                                                                                       \
  "{\"version\":1,\"address\":\"a4:c1:38:00:00:01\",\"model\":\"LYWSD03MMC\",\"product_id\":1371," \
  "\"did\":null,\"token\":\"" TOKEN "\",\"bind_key\":\"" BIND_KEY "\",\"deadline_ms\":12000}"
/* 64 bytes of 0xfb, url-safe: every character is one of the alphabets' differences or a neighbour
 */
#define SIGNATURE                                                                                  \
  "-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-w=="
#define BOUND                                                                                      \
  "{\"success\":true,\"cloud_cert\":\"MAIFAA\",\"cloud_sign\":\"" SIGNATURE "\",\"utc\":"          \
  "1700000000}"

static CloudRequest *
parse (const char *text, GError **error)
{
  return cloud_request_parse (text, strlen (text), error);
}

/* @text with the first @old replaced */
static char *
with (const char *text, const char *old, const char *new)
{
  const char *at = strstr (text, old);

  g_assert_nonnull (at);
  return g_strdup_printf ("%.*s%s%s", (int) (at - text), text, new, at + strlen (old));
}

static void
test_request (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (CloudRequest) request = parse (GOOD, &error);

  g_assert_no_error (error);
  g_assert_cmpstr (request->address, ==, "A4:C1:38:00:00:01");
  g_assert_cmpstr (request->model, ==, "LYWSD03MMC");
  g_assert_null (request->did);
  g_assert_cmpstr (request->token, ==, TOKEN);
  g_assert_cmpstr (request->bind_key, ==, BIND_KEY);
  g_assert_cmpint (request->timeout_ms, ==, 12000);
}

static void
test_bad_requests (void)
{
  static const struct
  {
    const char *old, *new;
  } changes[] = {
    { "\"version\":1", "\"version\":2" },
    { "\"version\":1", "\"version\":\"1\"" },
    { "a4:c1", "a4-c1" },
    { "a4:c1", "a4:c1:11" },
    { "\"LYWSD03MMC\"", "\"\"" },
    { "\"LYWSD03MMC\"", "5" },
    { "0011", "001" },
    { "0011", "00g1" },
    { "ffee", "ffee00" },
    { "12000", "-1" },
    { "12000", "\"soon\"" },
    { "null", "7" },
    { "null", "\"blt.3.129vtestaag00XX\"" },
    { "null", "\"blt 3\"" },
    { "}", "" },
    { "{", "[{" },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (changes); i++)
    {
      g_autofree char *text = with (GOOD, changes[i].old, changes[i].new);
      g_autoptr (GError) error = NULL;

      g_test_message ("%s", text);
      g_assert_null (parse (text, &error));
      g_assert_error (error, CLOUD_ERROR, CLOUD_ERROR_BAD_REQUEST);
      g_assert_null (strstr (error->message, TOKEN));
    }
}

static void
test_deep (void)
{
  g_autofree char *deep = g_strnfill (CLOUD_MAX_MESSAGE, '[');
  g_autoptr (GError) error = NULL;

  g_assert_null (cloud_request_parse (deep, CLOUD_MAX_MESSAGE, &error));
  g_assert_error (error, CLOUD_ERROR, CLOUD_ERROR_BAD_REQUEST);
}

static void
test_data (void)
{
  g_autofree char *bound = with (GOOD, "null", "\"blt.3.129vtestaag00\"");
  g_autoptr (CloudRequest) fresh = parse (GOOD, NULL);
  g_autoptr (CloudRequest) known = parse (bound, NULL);
  g_autofree char *first = cloud_request_apply_json (fresh);
  g_autofree char *second = cloud_request_apply_json (known);
  g_autofree char *third = cloud_request_bind_json (fresh, "blt.9");

  g_assert_cmpstr (first, ==,
                   "{\"mac\":\"A4:C1:38:00:00:01\",\"model\":\"LYWSD03MMC\",\"token\":\"" TOKEN
                   "\"}");
  g_assert_cmpstr (second, ==,
                   "{\"mac\":\"A4:C1:38:00:00:01\",\"model\":\"LYWSD03MMC\",\"token\":\"" TOKEN
                   "\",\"did\":\"blt.3.129vtestaag00\"}");
  g_assert_cmpstr (third, ==,
                   "{\"did\":\"blt.9\",\"token\":\"" TOKEN "\",\"beacon_key\":\"" BIND_KEY
                   "\",\"props\":[{\"type\":\"prop\",\"key\":\"bind_key\",\"value\":\"" BIND_KEY
                   "\"},{\"type\":\"prop\",\"key\":\"smac\",\"value\":\"A4:C1:38:00:00:01\"}]}");
}

/* What an answer of the service means */
static void
check_answer (const char *text, gsize len, int code)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (JsonObject) result = cloud_answer_parse (text, len, &error);

  g_autofree char *shown = g_strescape (text, NULL);

  g_test_message ("%s", shown);
  g_assert_null (result);
  g_assert_error (error, CLOUD_ERROR, code);
}

static void
test_answers (void)
{
  static const struct
  {
    const char *text;
    CloudError code;
  } answers[] = {
    { "", CLOUD_ERROR_MALFORMED },
    { "null", CLOUD_ERROR_MALFORMED },
    { "[]", CLOUD_ERROR_MALFORMED },
    { "{}", CLOUD_ERROR_MALFORMED },
    { "{\"code\":0", CLOUD_ERROR_MALFORMED },
    { "{\"code\":0}", CLOUD_ERROR_MALFORMED },
    { "{\"code\":0,\"message\":\"ok\",\"result\":[]}", CLOUD_ERROR_MALFORMED },
    { "{\"code\":\"0\",\"result\":{}}", CLOUD_ERROR_MALFORMED },
    { "{\"code\":-8,\"message\":\"data unknown error\"}", CLOUD_ERROR_REFUSED },
    { "{\"code\":-8,\"message\":null}", CLOUD_ERROR_REFUSED },
    { "{\"code\":-8,\"result\":{}}", CLOUD_ERROR_REFUSED },
    { "{\"code\":3,\"message\":\"auth err\"}", CLOUD_ERROR_EXPIRED_SESSION },
    { "{\"code\":0,\"message\":\"SERVICETOKEN_EXPIRED\"}", CLOUD_ERROR_EXPIRED_SESSION },
    { "{\"code\":-3,\"message\":\"wrong region\"}", CLOUD_ERROR_WRONG_REGION },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (answers); i++)
    check_answer (answers[i].text, strlen (answers[i].text), (int) answers[i].code);
  check_answer ("{\"code\":\xff}", 10, CLOUD_ERROR_MALFORMED);
  check_answer ("{\"code\":0,\0}", 12, CLOUD_ERROR_MALFORMED);
}

static JsonObject *
result_of (const char *result)
{
  g_autofree char *text = g_strdup_printf ("{\"code\":0,\"result\":%s}", result);
  g_autoptr (GError) error = NULL;
  JsonObject *object = cloud_answer_parse (text, strlen (text), &error);

  g_assert_no_error (error);
  return object;
}

static void
test_credential (void)
{
  g_autoptr (JsonObject) result = result_of (BOUND);
  g_autoptr (GError) error = NULL;
  g_autoptr (CloudCredential) credential = cloud_answer_take_credential (result, "blt.9", &error);
  g_autofree char *json = NULL;
  g_autoptr (GString) wanted = g_string_new ("{\"did\":\"blt.9\",\"signature\":\"");

  g_assert_no_error (error);
  json = cloud_credential_to_json (credential);
  for (int i = 0; i < CLOUD_SIGNATURE_LEN; i++)
    g_string_append (wanted, "fb");
  /* 30 02 05 00: a whole DER sequence */
  g_string_append (wanted, "\",\"utc\":1700000000,\"certificate\":\"30020500\"}");
  g_assert_cmpstr (json, ==, wanted->str);
}

static void
test_bad_credentials (void)
{
  static const struct
  {
    const char *old, *new;
    CloudError code;
  } changes[] = {
    { "true", "false", CLOUD_ERROR_REFUSED },
    { "true", "1", CLOUD_ERROR_MALFORMED },
    { "1700000000", "0", CLOUD_ERROR_MALFORMED },
    { "1700000000", "4294967296", CLOUD_ERROR_MALFORMED },
    { "1700000000", "\"1700000000\"", CLOUD_ERROR_MALFORMED },
    { "-_v7", "-_v", CLOUD_ERROR_MALFORMED },
    { "-_v7", "", CLOUD_ERROR_MALFORMED },
    { "-_v7", "-_v7-_v7", CLOUD_ERROR_MALFORMED },
    { "-_v7", "-*v7", CLOUD_ERROR_MALFORMED },
    { SIGNATURE, "", CLOUD_ERROR_MALFORMED },
    { "MAIFAA", "", CLOUD_ERROR_MALFORMED },
    { "MAIFAA", "MAIF", CLOUD_ERROR_MALFORMED },    /* cut off */
    { "MAIFAA", "MAIFAAA", CLOUD_ERROR_MALFORMED }, /* a byte too many */
    { "MAIFAA", "MQIFAA", CLOUD_ERROR_MALFORMED },  /* a set */
    { "MAIFAA", "MIIFAA", CLOUD_ERROR_MALFORMED },  /* 30 82 05 00: 1280 bytes missing */
    { "MAIFAA", "MA", CLOUD_ERROR_MALFORMED },
    { "MAIFAA", "MIA", CLOUD_ERROR_MALFORMED }, /* 30 80: no length */
    { "\"MAIFAA\"", "null", CLOUD_ERROR_MALFORMED },
    { "cloud_cert", "cert", CLOUD_ERROR_MALFORMED },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (changes); i++)
    {
      g_autofree char *text = with (BOUND, changes[i].old, changes[i].new);
      g_autoptr (JsonObject) result = result_of (text);
      g_autoptr (GError) error = NULL;

      g_test_message ("%s", text);
      g_assert_null (cloud_answer_take_credential (result, "blt.9", &error));
      g_assert_error (error, CLOUD_ERROR, (int) changes[i].code);
    }
}

static void
test_long_certificate (void)
{
  for (gsize body = 508; body <= 509; body++) /* 4 bytes of head */
    {
      guint8 der[513] = { 0x30, 0x82, (guint8) (body >> 8), (guint8) body };
      g_autofree char *base64 = g_base64_encode (der, body + 4);
      g_autofree char *text = with (BOUND, "MAIFAA", base64);
      g_autoptr (JsonObject) result = result_of (text);
      g_autoptr (CloudCredential) credential = NULL;

      credential = cloud_answer_take_credential (result, "blt.9", NULL);
      g_assert_true ((credential != NULL) == (body == 508));
    }
}

static void
test_did (void)
{
  g_autoptr (JsonObject) good = result_of ("{\"did\":\"blt.9\"}");
  g_autoptr (JsonObject) none = result_of ("{}");
  g_autoptr (JsonObject) spaced = result_of ("{\"did\":\"blt.9\\n\"}");
  g_autofree char *did = cloud_answer_take_did (good, NULL, NULL);
  g_autofree char *same = cloud_answer_take_did (good, "blt.9", NULL);
  GError *error = NULL;

  g_assert_cmpstr (did, ==, "blt.9");
  g_assert_cmpstr (same, ==, "blt.9");
  g_assert_null (cloud_answer_take_did (good, "blt.8", &error));
  g_assert_error (error, CLOUD_ERROR, CLOUD_ERROR_REFUSED);
  g_clear_error (&error);
  g_assert_null (cloud_answer_take_did (none, NULL, &error));
  g_assert_error (error, CLOUD_ERROR, CLOUD_ERROR_MALFORMED);
  g_clear_error (&error);
  g_assert_null (cloud_answer_take_did (spaced, NULL, &error));
  g_assert_error (error, CLOUD_ERROR, CLOUD_ERROR_MALFORMED);
  g_clear_error (&error);
}

static void
test_shown (void)
{
  g_autofree char *plain = cloud_text_for_people ("a\033[31mb\n\xff");
  g_autofree char *filling = g_strnfill (1000, 'x');
  g_autofree char *shortened = cloud_text_for_people (filling);

  g_assert_cmpstr (plain, ==, "a [31mb \xef\xbf\xbd");
  g_assert_cmpuint (strlen (shortened), ==, 200);
}

static void
test_base_url (void)
{
  static const char *const bad[] = { "http://127.0.0.1",
                                     "https://",
                                     "127.0.0.1:8443",
                                     "https://user@host",
                                     "https://host/other",
                                     "https://host/?a=b",
                                     "ftp://host",
                                     "https://host#x",
                                     "https://host:999999",
                                     "file:///etc/passwd",
                                     "" };
  g_autofree char *plain = cloud_base_url_parse ("https://127.0.0.1:8443");
  g_autofree char *app = cloud_base_url_parse ("https://localhost:1/app/");

  g_assert_cmpstr (plain, ==, "https://127.0.0.1:8443");
  g_assert_cmpstr (app, ==, "https://localhost:1");
  for (gsize i = 0; i < G_N_ELEMENTS (bad); i++)
    {
      g_test_message ("%s", bad[i]);
      g_assert_null (cloud_base_url_parse (bad[i]));
    }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/cloud/request/all-members-are-taken", test_request);
  g_test_add_func ("/cloud/request/bad-ones-are-refused-without-quoting-them", test_bad_requests);
  g_test_add_func ("/cloud/request/deep-nesting-is-not-parsed", test_deep);
  g_test_add_func ("/cloud/request/data-for-the-service", test_data);
  g_test_add_func ("/cloud/answer/kinds-of-errors", test_answers);
  g_test_add_func ("/cloud/answer/credential-is-taken", test_credential);
  g_test_add_func ("/cloud/answer/bad-credentials-are-malformed", test_bad_credentials);
  g_test_add_func ("/cloud/answer/certificate-has-at-most-512-bytes", test_long_certificate);
  g_test_add_func ("/cloud/answer/did-is-the-thermometers-own", test_did);
  g_test_add_func ("/cloud/text/controls-are-not-shown", test_shown);
  g_test_add_func ("/cloud/base-url/only-https-hosts", test_base_url);
  return g_test_run ();
}

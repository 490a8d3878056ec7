/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "images.h"
#include "vectors.h"

#include "mi-bytes.h"
#include "mi-rules.h"

#include <string.h>

static MiModels *models;
static MiRules *shipped;
static guint8 root[64];

static MiRules *
rules_from (const char *text, guint expected_problems)
{
  MiRules *rules = mi_rules_new ();
  g_autoptr (GKeyFile) file = g_key_file_new ();
  g_autoptr (GPtrArray) problems = g_ptr_array_new_with_free_func (g_free);

  g_assert_true (g_key_file_load_from_data (file, text, (gsize) -1, G_KEY_FILE_NONE, NULL));
  mi_rules_add_key_file (rules, file, "test", problems);
  if (problems->len != expected_problems)
    g_error ("%u problems in %s", problems->len, text);
  return rules;
}

static gboolean
holds (const char *conditions, const MiRuleQuery *query)
{
  g_autofree char *text = g_strdup_printf ("[rule x]\n%s\nAction=note\nText=t\n", conditions);
  g_autoptr (MiRules) rules = rules_from (text, 0);
  g_autoptr (GPtrArray) found = mi_rules_match (rules, query);

  return found->len == 1;
}

static void
test_conditions (void)
{
  const MiRuleQuery query = { .model = "LYWSD03MMC",
                              .hardware = "B1.6",
                              .from = "2.1.1_0159",
                              .to = "V5.8",
                              .to_kind = MI_IMAGE_CUSTOM_PVVX,
                              .size = 86352 };
  static const char *const yes[] = {
    "",
    "Model=LYWSD03MMC",
    "Model=X;LYWSD03MMC",
    "Model=LYWSD*",
    "Hardware=B1.5;B1.6",
    "From=stock",
    "From=2.1.1",
    "From==2.1.1_0159",
    "From=>=2.1.1,<3",
    "From=custom;stock",
    "From=<1;>=2",
    "To=custom",
    "To=custom-pvvx",
    "To=custom,<5.9",
    "To=custom, >=5.8",
    "To=stock;custom",
    "Size=>86351",
    "Size=<86353",
    "Model=LYWSD03MMC\nFrom=stock,>=2\nTo=custom",
  };
  static const char *const no[] = {
    "Model=MJWSD06MMC", "Model=LYWSD03",     "Hardware=B1.5",    "From=custom",
    "From=<2.1.1",      "From=>2.1.1",       "From==2.1.1_0160", "From=stock,<2",
    "To=stock",         "To=custom-atc1441", "To=custom,>=5.9",  "To=>=2.1.1",
    "To=5.8",           "Size=>86352",       "Size=<86352",      "Model=LYWSD03MMC\nFrom=custom",
  };
  guint i;

  for (i = 0; i < G_N_ELEMENTS (yes); i++)
    {
      if (!holds (yes[i], &query))
        g_error ("%s should hold", yes[i]);
    }
  for (i = 0; i < G_N_ELEMENTS (no); i++)
    {
      if (holds (no[i], &query))
        g_error ("%s should not hold", no[i]);
    }
}

static void
test_unknown_values (void)
{
  const MiRuleQuery query = { .to_kind = MI_IMAGE_UNKNOWN };

  g_assert_true (holds ("", &query));
  g_assert_false (holds ("Model=*", &query));
  g_assert_false (holds ("Hardware=B1.6", &query));
  g_assert_false (holds ("From=stock", &query));
  g_assert_false (holds ("From=>=0", &query));
  g_assert_false (holds ("To=custom", &query));
}

static void
test_broken_rules (void)
{
  static const char *const broken[] = {
    "[rule x]\nText=t\n",
    "[rule x]\nAction=\nText=t\n",
    "[rule x]\nAction=explode\nText=t\n",
    "[rule x]\nAction=refuse now\nText=t\n",
    "[rule x]\nAction=via\nText=t\n",
    "[rule x]\nAction=risk everything\nText=t\n",
    "[rule x]\nAction=risk\nText=t\n",
    "[rule x]\nAction=min-battery much\nText=t\n",
    "[rule x]\nAction=min-battery -1\nText=t\n",
    "[rule x]\nAction=note\n",
    "[rule x]\nAction=note\nText=t\nFrom=newer\n",
    "[rule x]\nAction=note\nText=t\nFrom=>=\n",
    "[rule x]\nAction=note\nText=t\nFrom==>2\n",
    "[rule x]\nAction=note\nText=t\nTo=stock,,\n",
    "[rule x]\nAction=note\nText=t\nTo=0130\n",
    "[rule x]\nAction=note\nText=t\nSize=131072\n",
    "[rule x]\nAction=note\nText=t\nModell=typo\n",
    "[x]\nAction=note\nText=t\n",
  };
  const MiRuleQuery query = { .model = "X" };
  guint i;

  for (i = 0; i < G_N_ELEMENTS (broken); i++)
    {
      g_autofree char *text = g_strconcat (broken[i], "[rule good]\nAction=note\nText=t\n", NULL);
      g_autoptr (MiRules) rules = rules_from (text, 1);
      g_autoptr (GPtrArray) found = mi_rules_match (rules, &query);

      g_assert_cmpuint (found->len, ==, 1);
      g_assert_cmpstr (((MiRule *) g_ptr_array_index (found, 0))->name, ==, "good");
    }
}

static void
test_first_of_each_kind (void)
{
  g_autoptr (MiRules) rules = rules_from ("[rule a]\nAction=note\nText=1\n"
                                          "[rule b]\nAction=note\nText=2\n"
                                          "[rule c]\nAction=risk unsigned\nText=3\n"
                                          "[rule d]\nAction=risk downgrade\nText=4\n"
                                          "[rule e]\nAction=risk unsigned\nText=5\n"
                                          "[rule f]\nAction=min-battery 2700\nText=6\n"
                                          "[rule g]\nAction=min-battery 2800\nText=7\n"
                                          "[rule h]\nAction=via 2.1.1_0159\nText=8\n"
                                          "[rule i]\nAction=refuse\nText=9\n",
                                          0);
  const MiRuleQuery query = { .model = "X" };
  g_autoptr (GPtrArray) found = mi_rules_match (rules, &query);
  g_autoptr (GString) names = g_string_new (NULL);
  guint i;

  for (i = 0; i < found->len; i++)
    g_string_append (names, ((MiRule *) g_ptr_array_index (found, i))->name);
  g_assert_cmpstr (names->str, ==, "acdfhi");
}

static void
test_shipped_rules_are_sound (void)
{
  g_autoptr (GPtrArray) problems = NULL;
  g_autoptr (MiRules) rules = mi_rules_load (MITHERM_SOURCE_DATA_DIR, NULL, &problems);
  guint i;

  g_assert_nonnull (rules);
  for (i = 0; i < problems->len; i++)
    g_test_message ("%s", (const char *) g_ptr_array_index (problems, i));
  g_assert_cmpuint (problems->len, ==, 0);
}

/* Plans */

static MiImage *
take_image (GByteArray *bytes)
{
  g_autoptr (GBytes) file = images_bytes (bytes);

  return mi_image_new (file, root);
}

static MiImage *
signed_image (void)
{
  JsonArray *cases = json_object_get_array_member (vectors_load ("image"), "synthetic");
  guint i;

  for (i = 0; i < json_array_get_length (cases); i++)
    {
      JsonObject *item = json_array_get_object_element (cases, i);
      gsize len;

      if (g_str_equal (json_object_get_string_member (item, "name"), "signed"))
        {
          guint8 *data = vectors_bytes (item, "data", &len);

          return take_image (g_byte_array_new_take (data, len));
        }
    }
  g_error ("no signed image in the vectors");
}

static MiImage *
custom_image (guint16 type, const char *version, gsize size)
{
  return take_image (
      images_build_text (size, IMAGES_CUSTOM, type, "github.com/pvvx", version, NULL));
}

static MiImage *
stock_image (const char *version)
{
  return take_image (
      images_build_text (4100, 0, 0, "mible-login-info", version, "LYWSD03MMC", NULL));
}

/* Plans the NULL-terminated images, which are taken. */
static MiPlan *
plan (MiRules *rules, const MiPlanDevice *device, ...)
{
  g_autoptr (GPtrArray) images = g_ptr_array_new_with_free_func ((GDestroyNotify) mi_image_unref);
  MiImage *image;
  va_list args;

  va_start (args, device);
  while ((image = va_arg (args, MiImage *)) != NULL)
    g_ptr_array_add (images, image);
  va_end (args);
  return mi_plan_new (models, rules, device, images);
}

static MiPlanHop *
hop_at (MiPlan *self, guint index)
{
  g_assert_cmpuint (index, <, self->hops->len);
  return g_ptr_array_index (self->hops, index);
}

static char *
join (GPtrArray *strings)
{
  GString *all = g_string_new (NULL);
  guint i;

  for (i = 0; i < strings->len; i++)
    g_string_append_printf (all, "%s%s", i > 0 ? "; " : "",
                            (const char *) g_ptr_array_index (strings, i));
  return g_string_free (all, FALSE);
}

static void
check_hop (MiPlan *self, guint index, MiRefusal refusal, const char *risks, const char *reason)
{
  MiPlanHop *hop = hop_at (self, index);
  g_autofree char *all_risks = join (hop->risks), *reasons = join (hop->reasons);

  if (hop->refusal != refusal || !g_str_equal (all_risks, risks)
      || (reason != NULL && strstr (reasons, reason) == NULL))
    g_error ("hop %u: %s, risks [%s], because: %s", index, mi_refusal_to_string (hop->refusal),
             all_risks, reasons);
}

static MiPlanDevice
device (const char *model, const char *hardware, const char *running)
{
  return (MiPlanDevice){ mi_models_find (models, model), hardware, running, FALSE };
}

static void
test_plan_simple (void)
{
  MiPlanDevice of = device ("LYWSD03MMC", "B1.4", "0130");
  g_autoptr (MiPlan) planned = plan (shipped, &of, custom_image (0x020a, "V5.8", 8196), NULL);
  MiPlanHop *hop = hop_at (planned, 0);

  check_hop (planned, 0, MI_REFUSAL_NONE, "", "name changes");
  g_assert_cmpstr (hop->from, ==, "1.0.0_0130");
  g_assert_cmpstr (hop->to, ==, "V5.8");
  g_assert_cmpstr (hop->transport, ==, "telink");
  g_assert_cmpuint (hop->size, ==, 8208);
  g_assert_cmpuint (hop->limit, ==, 131072);
  g_assert_cmpuint (hop->min_battery, ==, 2500);
  g_assert_cmpint (hop->signed_state, ==, MI_SIGNED_NOT_REQUIRED);
  g_assert_false (hop->device_decides);
}

static void
test_plan_device_decides (void)
{
  MiPlanDevice of = device ("LYWSD03MMC", "B1.4", "2.1.1_0159");
  g_autoptr (MiPlan) bare = plan (shipped, &of, custom_image (0x020a, "V5.8", 8196), NULL);
  g_autoptr (MiPlan) enveloped = NULL;

  check_hop (bare, 0, MI_REFUSAL_NONE, "unsigned", "the device decides");
  g_assert_true (hop_at (bare, 0)->device_decides);
  of.envelope = TRUE;
  enveloped = plan (shipped, &of, custom_image (0x020a, "V5.8", 8196), NULL);
  check_hop (enveloped, 0, MI_REFUSAL_NONE, "", "the device decides");
  g_assert_true (hop_at (enveloped, 0)->device_decides);
}

static void
test_plan_two_hops (void)
{
  MiPlanDevice of = device ("LYWSD03MMC", "B1.6", "1.0.0_0130");
  g_autoptr (MiPlan) planned
      = plan (shipped, &of, signed_image (), custom_image (0x020a, "V5.8", 8196), NULL);

  g_assert_cmpuint (planned->hops->len, ==, 2);
  check_hop (planned, 0, MI_REFUSAL_NONE, "", "dark display");
  check_hop (planned, 1, MI_REFUSAL_NONE, "unsigned", "the device decides");
  g_assert_cmpstr (hop_at (planned, 0)->to, ==, "2.1.1_0159");
  g_assert_cmpstr (hop_at (planned, 1)->from, ==, "2.1.1_0159");
  g_assert_cmpint (hop_at (planned, 0)->signed_state, ==, MI_SIGNED_NOT_REQUIRED);
  g_assert_cmpint (hop_at (planned, 1)->signed_state, ==, MI_SIGNED_REQUIRED);
}

/* After custom firmware nothing demands a signature any more. */
static void
test_plan_follows_the_firmware (void)
{
  MiPlanDevice of = device ("LYWSD03MMC", NULL, "V5.7");
  g_autoptr (MiPlan) planned = plan (shipped, &of, stock_image ("1.0.0_0130"), signed_image (),
                                     stock_image ("1.0.0_0130"), NULL);

  check_hop (planned, 0, MI_REFUSAL_NONE, "", "bind it again");
  check_hop (planned, 1, MI_REFUSAL_NONE, "", "signed by the vendor");
  check_hop (planned, 2, MI_REFUSAL_NONE, "unsigned; downgrade", "older than what runs");
}

static void
test_plan_via (void)
{
  g_autoptr (MiRules) rules = rules_from ("[rule first]\nModel=LYWSD03MMC\nTo=custom\n"
                                          "Action=via 2.1.1_0159\nText=signed first\n",
                                          0);
  MiPlanDevice of = device ("LYWSD03MMC", NULL, "1.0.0_0130");
  g_autoptr (MiPlan) missing = plan (rules, &of, custom_image (0x020a, "V5.8", 8196), NULL);
  g_autoptr (MiPlan) moved
      = plan (rules, &of, custom_image (0x020a, "V5.8", 8196), signed_image (), NULL);

  check_hop (missing, 0, MI_REFUSAL_MISSING_IMAGE, "", "2.1.1_0159");
  check_hop (moved, 0, MI_REFUSAL_NONE, "", NULL);
  check_hop (moved, 1, MI_REFUSAL_NONE, "unsigned", "signed first");
  g_assert_cmpuint (hop_at (moved, 0)->image, ==, 1);
  g_assert_cmpuint (hop_at (moved, 1)->image, ==, 0);
}

/* Rules that ask for each other end in a refusal, not in a loop. */
static void
test_plan_via_circle (void)
{
  g_autoptr (MiRules) rules = rules_from ("[rule a]\nTo=custom\nAction=via 1.0.0_0130\nText=a\n"
                                          "[rule b]\nTo=stock\nAction=via V5.8\nText=b\n",
                                          0);
  MiPlanDevice of = device ("LYWSD03MMC", NULL, "1.0.0_0109");
  g_autoptr (MiPlan) planned
      = plan (rules, &of, custom_image (0x020a, "V5.8", 8196), stock_image ("1.0.0_0130"), NULL);

  g_assert_cmpuint (planned->hops->len, ==, 2);
  g_assert_cmpint (hop_at (planned, 0)->refusal, ==, MI_REFUSAL_MISSING_IMAGE);
}

static void
test_plan_refusals (void)
{
  MiPlanDevice lywsd03 = device ("LYWSD03MMC", "B1.4", "1.0.0_0130");
  MiPlanDevice clock = device ("MHO-C303", NULL, "1.0.0_0001");
  GByteArray *broken = images_build (4100, 21, 0x1141, 0x020a, 0);
  g_autoptr (MiPlan) wrong = plan (shipped, &lywsd03, custom_image (0x0201, "V5.8", 8196), NULL);
  g_autoptr (MiPlan) none = plan (shipped, &clock, stock_image ("1.0.0_0130"), NULL);
  g_autoptr (MiPlan) unknown
      = plan (shipped, &lywsd03, take_image (images_build (4100, 21, 0, 0, 0)), NULL);
  g_autoptr (MiPlan) bad = NULL;

  broken->data[100] ^= 1;
  bad = plan (shipped, &lywsd03, take_image (broken), NULL);
  check_hop (wrong, 0, MI_REFUSAL_WRONG_HARDWARE, "wrong-hardware", "does not fit");
  check_hop (bad, 0, MI_REFUSAL_BAD_IMAGE, "", "crc");
  check_hop (unknown, 0, MI_REFUSAL_NONE, "wrong-hardware; unknown-version", "cannot be told");
  g_assert_cmpint (hop_at (none, 0)->refusal, ==, MI_REFUSAL_WRONG_HARDWARE);
  g_assert_null (hop_at (none, 0)->transport);
}

static void
test_plan_expected_version (void)
{
  MiPlanDevice of = device ("LYWSD03MMC", "B1.4", "1.0.0_0130");
  g_autoptr (MiPlan) unknown
      = plan (shipped, &of, take_image (images_build (4100, 21, 0x1141, 0x020a, 0)), NULL);
  g_autoptr (MiPlan) expected = NULL;

  check_hop (unknown, 0, MI_REFUSAL_NONE, "unknown-version", "all the proof");
  of.expect = "V5.8";
  expected = plan (shipped, &of, take_image (images_build (4100, 21, 0x1141, 0x020a, 0)), NULL);
  check_hop (expected, 0, MI_REFUSAL_NONE, "", NULL);
  g_assert_cmpstr (hop_at (expected, 0)->to, ==, "V5.8");
}

static void
test_plan_sizes (void)
{
  MiPlanDevice stock = device ("LYWSD03MMC", "B1.4", "1.0.0_0130");
  MiPlanDevice old_custom = device ("LYWSD03MMC", NULL, "V4.5");
  MiPlanDevice custom = device ("LYWSD03MMC", NULL, "V5.8");
  gsize fits = 131072 - 12, large = 131072 + 4, huge = 208 * 1024 + 4;
  g_autoptr (MiPlan) at = plan (shipped, &stock, custom_image (0x020a, "V5.8", fits), NULL);
  g_autoptr (MiPlan) over = plan (shipped, &stock, custom_image (0x020a, "V5.8", large), NULL);
  g_autoptr (MiPlan) old = plan (shipped, &old_custom, custom_image (0x020a, "V5.8", large), NULL);
  g_autoptr (MiPlan) extended = plan (shipped, &custom, custom_image (0x020a, "V5.9", large), NULL);
  g_autoptr (MiPlan) too_huge = plan (shipped, &custom, custom_image (0x020a, "V5.9", huge), NULL);

  check_hop (at, 0, MI_REFUSAL_NONE, "", NULL);
  g_assert_cmpuint (hop_at (at, 0)->size, ==, 131072);
  check_hop (over, 0, MI_REFUSAL_TOO_LARGE, "", "pvvx#602");
  check_hop (old, 0, MI_REFUSAL_TOO_LARGE, "", NULL);
  check_hop (extended, 0, MI_REFUSAL_NONE, "", "erases its saved Mi data");
  g_assert_cmpstr (hop_at (extended, 0)->transport, ==, "telink-extended");
  check_hop (too_huge, 0, MI_REFUSAL_TOO_LARGE, "", NULL);
}

static void
test_plan_known_bad (void)
{
  MiPlanDevice of = device ("MJWSD06MMC", "U1.3", "0009");
  g_autoptr (MiPlan) bad = plan (shipped, &of, custom_image (0x020d, "V5.8", 8196), NULL);
  g_autoptr (MiPlan) good = plan (shipped, &of, custom_image (0x020d, "V5.9", 8196), NULL);

  check_hop (bad, 0, MI_REFUSAL_RULE, "", "pvvx#813");
  check_hop (good, 0, MI_REFUSAL_NONE, "", NULL);
  g_assert_cmpint (hop_at (good, 0)->signed_state, ==, MI_SIGNED_NOT_REQUIRED);
}

static void
test_plan_transport (void)
{
  MiPlanDevice clock = device ("LYWSD02MMC", "F4_A1", "2.0.1_0021");
  g_autoptr (MiPlan) planned = plan (shipped, &clock, custom_image (0x0231, "V5.8", 8196), NULL);

  check_hop (planned, 0, MI_REFUSAL_NONE, "unsigned", "no Telink update service");
  g_assert_cmpstr (hop_at (planned, 0)->transport, ==, "mible");
}

static void
test_plan_variant (void)
{
  MiPlanDevice of = device ("LYWSD03MMC", "B1.6", "1.0.0_0130");
  g_autoptr (MiPlan) planned = plan (shipped, &of, signed_image (), NULL);
  g_autoptr (GVariant) hops = g_variant_ref_sink (mi_plan_to_variant (planned));
  g_autoptr (GVariant) first = NULL;
  const char *to, *refusal;
  guint32 image;

  g_assert_true (g_variant_is_of_type (hops, G_VARIANT_TYPE ("aa{sv}")));
  g_assert_cmpuint (g_variant_n_children (hops), ==, 1);
  first = g_variant_get_child_value (hops, 0);
  g_assert_true (g_variant_lookup (first, "to", "&s", &to));
  g_assert_true (g_variant_lookup (first, "refusal", "&s", &refusal));
  g_assert_true (g_variant_lookup (first, "image", "u", &image));
  g_assert_cmpstr (to, ==, "2.1.1_0159");
  g_assert_cmpstr (refusal, ==, "none");
  g_assert_cmpuint (image, ==, 0);
}

static void
test_plan_knows_nothing (void)
{
  MiPlanDevice nobody = { NULL, NULL, NULL, FALSE, NULL };
  g_autoptr (MiPlan) empty = plan (shipped, &nobody, NULL);
  g_autoptr (MiPlan) planned = plan (shipped, &nobody, stock_image ("1.0.0_0130"), NULL);

  g_assert_cmpuint (empty->hops->len, ==, 0);
  check_hop (planned, 0, MI_REFUSAL_NONE, "wrong-hardware; unsigned", "not known");
}

int
main (int argc, char **argv)
{
  int status;

  g_test_init (&argc, &argv, NULL);
  g_assert_true (
      mi_hex_decode (json_object_get_string_member (
                         json_object_get_object_member (vectors_load ("image"), "root"), "public"),
                     root, sizeof root));
  models = mi_models_load (MITHERM_SOURCE_DATA_DIR, NULL, NULL);
  shipped = mi_rules_load (MITHERM_SOURCE_DATA_DIR, NULL, NULL);
  g_test_add_func ("/rules/conditions", test_conditions);
  g_test_add_func ("/rules/unknown-values-match-no-condition", test_unknown_values);
  g_test_add_func ("/rules/first-of-each-kind-of-action", test_first_of_each_kind);
  g_test_add_func ("/rules/broken-rule-is-told-and-skipped", test_broken_rules);
  g_test_add_func ("/rules/shipped-ones-are-sound", test_shipped_rules_are_sound);
  g_test_add_func ("/plan/custom-image-on-1.0.0", test_plan_simple);
  g_test_add_func ("/plan/unsigned-on-2.1.1-the-device-decides", test_plan_device_decides);
  g_test_add_func ("/plan/two-hops", test_plan_two_hops);
  g_test_add_func ("/plan/each-hop-follows-the-firmware-before", test_plan_follows_the_firmware);
  g_test_add_func ("/plan/via-takes-the-image-out-of-turn", test_plan_via);
  g_test_add_func ("/plan/via-in-a-circle-is-refused", test_plan_via_circle);
  g_test_add_func ("/plan/refusals", test_plan_refusals);
  g_test_add_func ("/plan/expected-version", test_plan_expected_version);
  g_test_add_func ("/plan/size-routes", test_plan_sizes);
  g_test_add_func ("/plan/known-bad-pair-is-refused", test_plan_known_bad);
  g_test_add_func ("/plan/transport-of-the-model", test_plan_transport);
  g_test_add_func ("/plan/as-variant", test_plan_variant);
  g_test_add_func ("/plan/knowing-nothing", test_plan_knows_nothing);
  status = g_test_run ();
  mi_models_free (models);
  mi_rules_free (shipped);
  return status;
}

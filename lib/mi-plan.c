/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "mi-rules.h"

#define BLOCK 16

/* protocol/ota-telink.md section 6: what a bank of a model without a known limit surely holds. */
#define PLAIN_LIMIT 0x20000

/* protocol/ota-telink.md section 8 */
#define EXTENDED_FROM    "4.6"
#define EXTENDED_MAX_KIB 207

/* One planning run. */
typedef struct
{
  MiModels *models;
  MiRules *rules;
  const MiPlanDevice *device;
  GPtrArray *images;
  GArray *left; /* guint: indices of the images not yet used */
  char *from;   /* (nullable): the version that runs before the hop */
  MiImageKind from_kind;
} Planner;

static void
hop_free (gpointer data)
{
  MiPlanHop *hop = data;

  g_free (hop->from);
  g_free (hop->to);
  g_ptr_array_unref (hop->risks);
  g_ptr_array_unref (hop->reasons);
  g_free (hop);
}

const char *
mi_refusal_to_string (MiRefusal refusal)
{
  static const char *const names[] = {
    [MI_REFUSAL_NONE] = "none",
    [MI_REFUSAL_BAD_IMAGE] = "bad-image",
    [MI_REFUSAL_WRONG_HARDWARE] = "wrong-hardware",
    [MI_REFUSAL_TOO_LARGE] = "too-large",
    [MI_REFUSAL_NO_TRANSPORT] = "no-transport",
    [MI_REFUSAL_MISSING_IMAGE] = "missing-image",
    [MI_REFUSAL_RULE] = "rule",
  };

  g_return_val_if_fail (refusal < G_N_ELEMENTS (names), "none");
  return names[refusal];
}

G_GNUC_PRINTF (2, 3)
static void
add_reason (MiPlanHop *hop, const char *format, ...)
{
  va_list args;

  va_start (args, format);
  g_ptr_array_add (hop->reasons, g_strdup_vprintf (format, args));
  va_end (args);
}

static void
add_risk (MiPlanHop *hop, const char *risk)
{
  if (!g_ptr_array_find_with_equal_func (hop->risks, risk, g_str_equal, NULL))
    g_ptr_array_add (hop->risks, g_strdup (risk));
}

/* The first refusal is the one that is told; the reasons have all of them. */
static void
refuse (MiPlanHop *hop, MiRefusal refusal)
{
  if (hop->refusal == MI_REFUSAL_NONE)
    hop->refusal = refusal;
}

static MiImage *
image_at (Planner *self, guint index)
{
  return g_ptr_array_index (self->images, index);
}

static GPtrArray *
match_rules (Planner *self, MiImage *image)
{
  const MiPlanDevice *device = self->device;
  MiRuleQuery query = {
    .model = device->model != NULL ? mi_model_get_name (device->model) : NULL,
    .hardware = device->hardware,
    .from = self->from,
    .from_kind = self->from_kind,
    .to = mi_models_get_image_version (self->models, image),
    .to_kind = mi_image_get_body_kind (image),
    .size = (gsize) mi_image_get_blocks (image) * BLOCK,
  };

  return mi_rules_match (self->rules, &query);
}

static const MiRule *
find_action (GPtrArray *rules, MiRuleAction action)
{
  guint i;

  for (i = 0; i < rules->len; i++)
    {
      const MiRule *rule = g_ptr_array_index (rules, i);

      if (rule->action == action)
        return rule;
    }
  return NULL;
}

/* The version that must run before @image may be installed, NULL if that is so or none must. */
static const MiRule *
find_unmet_via (Planner *self, MiImage *image)
{
  g_autoptr (GPtrArray) rules = match_rules (self, image);
  const MiRule *via = find_action (rules, MI_RULE_VIA);

  if (via == NULL || mi_version_equal (self->from, via->argument)
      || mi_version_equal (mi_models_get_image_version (self->models, image), via->argument))
    return NULL;
  return via;
}

/*
 * The position in @left of the image to install now: the first, or the one that has to come before
 * it. @missing is set where that is not among the images.
 */
static guint
choose (Planner *self, const MiRule **missing)
{
  guint position = 0, tries, i;

  for (tries = 0; tries < self->left->len; tries++)
    {
      MiImage *image = image_at (self, g_array_index (self->left, guint, position));

      *missing = find_unmet_via (self, image);
      if (*missing == NULL)
        return position;
      for (i = 0; i < self->left->len; i++)
        {
          MiImage *other = image_at (self, g_array_index (self->left, guint, i));

          if (mi_version_equal (mi_models_get_image_version (self->models, other),
                                (*missing)->argument))
            break;
        }
      if (i == self->left->len)
        return position;
      position = i;
    }
  return position; /* rules that ask for each other: @missing says which */
}

/* Judging one hop. */

static void
judge_fit (Planner *self, MiPlanHop *hop, MiImage *image)
{
  g_autofree char *reason = NULL;

  hop->fit = mi_models_fit (self->models, self->device->model, self->device->hardware, self->from,
                            image, &reason);
  switch (hop->fit)
    {
    case MI_FIT_YES:
      add_reason (hop, "fits: %s", reason);
      break;
    case MI_FIT_UNKNOWN:
      add_risk (hop, "wrong-hardware");
      add_reason (hop, "whether it fits cannot be told: %s", reason);
      break;
    case MI_FIT_NO:
      refuse (hop, MI_REFUSAL_WRONG_HARDWARE);
      add_risk (hop, "wrong-hardware");
      add_reason (hop, "does not fit: %s", reason);
      break;
    }
}

static void
judge_signature (Planner *self, MiPlanHop *hop, MiImage *image, gboolean last)
{
  hop->signed_state = mi_models_get_signed (self->models, self->device->model, self->from);
  if (mi_image_is_signed (image))
    {
      add_reason (hop, "signed by the vendor");
      return;
    }
  if (mi_image_get_kind (image) == MI_IMAGE_DAMAGED)
    {
      add_risk (hop, "unsigned");
      add_reason (hop, "what follows the image in the file does not verify: damaged or forged");
    }
  if (hop->signed_state == MI_SIGNED_NOT_REQUIRED)
    return;
  hop->device_decides = TRUE;
  if (last && self->device->envelope)
    {
      add_reason (hop, "under the envelope the device decides, and only the version read back "
                       "counts");
      return;
    }
  add_risk (hop, "unsigned");
  if (hop->signed_state == MI_SIGNED_UNKNOWN)
    add_reason (hop, "whether the running firmware demands a signature is not known");
  else
    add_reason (hop, "the running firmware demands a signature, and the image has no valid one: "
                     "the device decides, and may refuse it and freeze until its battery is "
                     "taken out; give an envelope, or a signed image first");
}

static gboolean
can_extend (Planner *self)
{
  int order;

  return self->from_kind == MI_IMAGE_CUSTOM_PVVX
         && mi_version_compare (self->from, EXTENDED_FROM, &order) && order >= 0;
}

static void
judge_size (Planner *self, MiPlanHop *hop)
{
  guint32 kib = (hop->size + 1023) / 1024;

  if (g_strcmp0 (hop->transport, "telink") != 0)
    return;
  hop->limit = self->device->model != NULL ? mi_model_get_limit (self->device->model) : 0;
  if (hop->limit == 0)
    hop->limit = PLAIN_LIMIT;
  if (hop->size <= hop->limit)
    return;
  if (can_extend (self) && kib <= EXTENDED_MAX_KIB)
    {
      hop->transport = "telink-extended";
      hop->limit = kib * 1024 + 4096;
      add_reason (hop,
                  "%u bytes are too many for the plain bank; the running custom firmware can "
                  "prepare a larger one, which erases its saved Mi data and measurements",
                  hop->size);
      return;
    }
  refuse (hop, MI_REFUSAL_TOO_LARGE);
  add_reason (hop, "%u bytes are more than the %u that its bank holds", hop->size, hop->limit);
}

static void
judge_transport (Planner *self, MiPlanHop *hop)
{
  const char *const *transports
      = self->device->model != NULL ? mi_model_get_transports (self->device->model) : NULL;

  /* Custom firmware always has the Telink service. */
  if (self->from_kind == MI_IMAGE_CUSTOM_PVVX || self->from_kind == MI_IMAGE_CUSTOM_ATC1441)
    hop->transport = "telink";
  else if (transports != NULL && transports[0] != NULL)
    hop->transport = transports[0];
  else if (self->device->model != NULL)
    {
      refuse (hop, MI_REFUSAL_NO_TRANSPORT);
      add_reason (hop, "no way to update %s over the air is known",
                  mi_model_get_name (self->device->model));
      return;
    }
  else
    add_reason (hop, "the transport is known once the thermometer's services are read");
  judge_size (self, hop);
}

static void
judge_versions (Planner *self, MiPlanHop *hop, MiImage *image, gboolean last)
{
  MiImageKind body = mi_image_get_body_kind (image);
  int order;

  if (hop->to == NULL && last)
    hop->to = g_strdup (self->device->expect);
  if (hop->to == NULL)
    {
      add_risk (hop, "unknown-version");
      add_reason (hop, "the image's version is not known: unless the expected one is given, a "
                       "changed version is all the proof there is");
    }
  if (hop->from == NULL)
    add_reason (hop, "the running version is not known: it is read before the first block");
  if (body == self->from_kind && mi_version_compare (hop->to, hop->from, &order) && order < 0)
    {
      add_risk (hop, "downgrade");
      add_reason (hop, "older than what runs: %s after %s", hop->to, hop->from);
    }
}

static void
apply_rule (MiPlanHop *hop, const MiRule *rule)
{
  switch (rule->action)
    {
    case MI_RULE_REFUSE:
      refuse (hop, MI_REFUSAL_RULE);
      break;
    case MI_RULE_RISK:
      add_risk (hop, rule->argument);
      break;
    case MI_RULE_MIN_BATTERY:
      hop->min_battery = MAX (hop->min_battery, rule->number);
      break;
    case MI_RULE_VIA: /* met, or told by the refusal */
    case MI_RULE_NOTE:
      break;
    }
  add_reason (hop, "%s (rule %s%s%s)", rule->text, rule->name, rule->source != NULL ? ", " : "",
              rule->source != NULL ? rule->source : "");
}

static void
apply_rules (Planner *self, MiPlanHop *hop, MiImage *image)
{
  g_autoptr (GPtrArray) rules = match_rules (self, image);
  guint i;

  for (i = 0; i < rules->len; i++)
    apply_rule (hop, g_ptr_array_index (rules, i));
}

static MiPlanHop *
plan_hop (Planner *self, guint index, const MiRule *missing, gboolean last)
{
  MiPlanHop *hop = g_new0 (MiPlanHop, 1);
  MiImage *image = image_at (self, index);
  g_autoptr (GError) error = NULL;

  hop->image = index;
  hop->from = g_strdup (self->from);
  hop->to = g_strdup (mi_models_get_image_version (self->models, image));
  hop->size = mi_image_get_blocks (image) * BLOCK;
  hop->min_battery
      = self->device->model != NULL ? mi_model_get_min_battery (self->device->model) : 0;
  hop->risks = g_ptr_array_new_with_free_func (g_free);
  hop->reasons = g_ptr_array_new_with_free_func (g_free);
  if (!mi_image_check (image, &error))
    {
      refuse (hop, MI_REFUSAL_BAD_IMAGE);
      add_reason (hop, "%s", error->message);
      return hop;
    }
  judge_fit (self, hop, image);
  judge_transport (self, hop);
  judge_signature (self, hop, image, last);
  judge_versions (self, hop, image, last);
  apply_rules (self, hop, image);
  if (missing != NULL)
    {
      refuse (hop, MI_REFUSAL_MISSING_IMAGE);
      add_reason (hop, "an image of version %s must be installed first, and is not among these",
                  missing->argument);
    }
  return hop;
}

static MiImageKind
kind_of_version (const char *version)
{
  if (version == NULL)
    return MI_IMAGE_UNKNOWN;
  return mi_version_is_custom (version) ? MI_IMAGE_CUSTOM_PVVX : MI_IMAGE_STOCK;
}

MiPlan *
mi_plan_new (MiModels *models, MiRules *rules, const MiPlanDevice *device, GPtrArray *images)
{
  MiPlan *plan = g_new0 (MiPlan, 1);
  Planner self = { models, rules, device, images };
  guint i;

  plan->hops = g_ptr_array_new_with_free_func (hop_free);
  self.left = g_array_new (FALSE, FALSE, sizeof (guint));
  for (i = 0; i < images->len; i++)
    g_array_append_val (self.left, i);
  self.from = mi_models_normalise_version (models, device->model, device->running);
  self.from_kind = kind_of_version (self.from);
  while (self.left->len > 0)
    {
      const MiRule *missing = NULL;
      guint position = choose (&self, &missing);
      guint index = g_array_index (self.left, guint, position);
      MiPlanHop *hop = plan_hop (&self, index, missing, self.left->len == 1);

      g_ptr_array_add (plan->hops, hop);
      g_array_remove_index (self.left, position);
      g_free (self.from);
      self.from = g_strdup (hop->to);
      self.from_kind = mi_image_get_body_kind (image_at (&self, index));
      if (self.from_kind == MI_IMAGE_UNKNOWN)
        self.from_kind = kind_of_version (self.from);
    }
  g_free (self.from);
  g_array_unref (self.left);
  return plan;
}

void
mi_plan_free (MiPlan *self)
{
  if (self == NULL)
    return;
  g_ptr_array_unref (self->hops);
  g_free (self);
}

static GVariant *
strings_to_variant (GPtrArray *strings)
{
  return g_variant_new_strv ((const char *const *) strings->pdata, strings->len);
}

static GVariant *
hop_to_variant (const MiPlanHop *hop)
{
  static const char *const fits[] = { "unknown", "yes", "no" };
  g_auto (GVariantDict) dict = G_VARIANT_DICT_INIT (NULL);

  g_variant_dict_insert (&dict, "image", "u", hop->image);
  if (hop->from != NULL)
    g_variant_dict_insert (&dict, "from", "s", hop->from);
  if (hop->to != NULL)
    g_variant_dict_insert (&dict, "to", "s", hop->to);
  if (hop->transport != NULL)
    g_variant_dict_insert (&dict, "transport", "s", hop->transport);
  g_variant_dict_insert (&dict, "size", "u", hop->size);
  g_variant_dict_insert (&dict, "limit", "u", hop->limit);
  g_variant_dict_insert (&dict, "fit", "s", fits[hop->fit]);
  g_variant_dict_insert (&dict, "signed", "s", mi_signed_to_string (hop->signed_state));
  g_variant_dict_insert (&dict, "device-decides", "b", hop->device_decides);
  g_variant_dict_insert (&dict, "min-battery", "u", hop->min_battery);
  g_variant_dict_insert (&dict, "refusal", "s", mi_refusal_to_string (hop->refusal));
  g_variant_dict_insert_value (&dict, "risks", strings_to_variant (hop->risks));
  g_variant_dict_insert_value (&dict, "reasons", strings_to_variant (hop->reasons));
  return g_variant_dict_end (&dict);
}

GVariant *
mi_plan_to_variant (MiPlan *self)
{
  GVariantBuilder builder;
  guint i;

  g_variant_builder_init (&builder, G_VARIANT_TYPE ("aa{sv}"));
  for (i = 0; i < self->hops->len; i++)
    g_variant_builder_add_value (&builder, hop_to_variant (g_ptr_array_index (self->hops, i)));
  return g_variant_builder_end (&builder);
}

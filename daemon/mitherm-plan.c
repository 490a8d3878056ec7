/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-plan.h"

#include "mitherm-error.h"

#define BLOCK_LEN 16

void
mitherm_plan_get_target (MithermDevice *device, MithermTarget *target)
{
  const MithermFacts *facts = mitherm_device_get_facts (device);

  *target = (MithermTarget){
    .model = mitherm_device_get_model (device),
    .hardware = facts->hardware,
    .running = facts->info_us != 0 ? facts->firmware : NULL,
  };
}

static void
refuse (MiPlanHop *hop, MiRefusal refusal, const char *reason)
{
  if (hop->refusal == MI_REFUSAL_NONE)
    hop->refusal = refusal;
  g_ptr_array_add (hop->reasons, g_strdup (reason));
}

static void
wrap_hop (MiPlanHop *hop, MiImage *image, GBytes *envelope)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GBytes) wrapped
      = mi_image_apply_envelope (mi_image_get_payload (image), envelope, &error);

  if (wrapped == NULL)
    {
      refuse (hop, MI_REFUSAL_BAD_IMAGE, error->message);
      return;
    }
  hop->size = (guint32) ((g_bytes_get_size (wrapped) + BLOCK_LEN - 1) / BLOCK_LEN * BLOCK_LEN);
  if (hop->limit != 0 && hop->size > hop->limit)
    refuse (hop, MI_REFUSAL_TOO_LARGE, "with its envelope it is more than its bank holds");
}

static void
complete_hop (MiPlanHop *hop, MiImage *image)
{
  if (g_strcmp0 (hop->transport, "telink-extended") == 0)
    refuse (hop, MI_REFUSAL_NO_TRANSPORT, "mitherm does not prepare larger banks yet");
  if (g_strcmp0 (hop->transport, "mible") == 0 && !mi_image_is_signed (image)
      && !hop->device_decides)
    {
      hop->device_decides = TRUE;
      g_ptr_array_add (hop->risks, g_strdup ("unsigned"));
      g_ptr_array_add (hop->reasons, g_strdup ("by the transport mible thermometers take signed "
                                               "images only"));
    }
}

MiPlan *
mitherm_plan_new (MithermManager *manager, const MithermTarget *target, GPtrArray *images,
                  GBytes *envelope, const char *expect)
{
  const MithermManagerConfig *config = mitherm_manager_get_config (manager);
  g_autoptr (MiRules) none = config->rules == NULL ? mi_rules_new () : NULL;
  MiPlanDevice device = {
    .model = target->model,
    .hardware = target->hardware,
    .running = target->running,
    .envelope = envelope != NULL,
    .expect = expect,
  };
  MiPlan *plan = mi_plan_new (config->models, none != NULL ? none : config->rules, &device, images);

  for (guint i = 0; i < plan->hops->len; i++)
    {
      MiPlanHop *hop = g_ptr_array_index (plan->hops, i);

      complete_hop (hop, g_ptr_array_index (images, hop->image));
      if (envelope != NULL && i + 1 == plan->hops->len)
        wrap_hop (hop, g_ptr_array_index (images, hop->image), envelope);
    }
  return plan;
}

static MithermError
error_of_risk (MithermRisk risk)
{
  switch (risk)
    {
    case MITHERM_RISK_WRONG_HARDWARE:
      return MITHERM_ERROR_WRONG_HARDWARE;
    case MITHERM_RISK_UNSIGNED:
      return MITHERM_ERROR_NOT_SIGNED;
    case MITHERM_RISK_BATTERY_LOW:
      return MITHERM_ERROR_BATTERY_LOW;
    case MITHERM_RISK_UNKNOWN_VERSION:
    case MITHERM_RISK_DOWNGRADE:
    default:
      return MITHERM_ERROR_BAD_IMAGE;
    }
}

static gboolean
check_risk (const MiRule *rule, MithermRisk accept, GError **error)
{
  MithermRisk risk;

  /* Rules with unknown risks have been skipped when they were read. */
  if (!mitherm_risk_from_string (rule->argument, &risk) || (accept & risk) != 0)
    return TRUE;
  g_set_error (error, MITHERM_ERROR, (int) error_of_risk (risk),
               "%s (rule %s) Accept the risk %s if you want it all the same.", rule->text,
               rule->name, rule->argument);
  return FALSE;
}

gboolean
mitherm_plan_check_rules (MithermManager *manager, const MithermTarget *target, MiImage *image,
                          MithermRisk accept, guint *min_battery_mv, GPtrArray *notes,
                          GError **error)
{
  const MithermManagerConfig *config = mitherm_manager_get_config (manager);
  g_autofree char *running = NULL;
  g_autoptr (GPtrArray) rules = NULL;
  MiRuleQuery query = {
    .model = target->model != NULL ? mi_model_get_name (target->model) : NULL,
    .hardware = target->hardware,
    .from_kind = MI_IMAGE_UNKNOWN,
    .to = mi_models_get_image_version (config->models, image),
    .to_kind = mi_image_get_body_kind (image),
    .size = target->size != 0 ? target->size : (gsize) mi_image_get_blocks (image) * BLOCK_LEN,
  };

  if (config->rules == NULL)
    return TRUE;
  if (target->running != NULL)
    running = mi_models_normalise_version (config->models, target->model, target->running);
  query.from = running;
  rules = mi_rules_match (config->rules, &query);
  for (guint i = 0; i < rules->len; i++)
    {
      const MiRule *rule = g_ptr_array_index (rules, i);

      if (rule->action == MI_RULE_REFUSE)
        {
          g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_BAD_IMAGE,
                       "%s (rule %s) Take another image.", rule->text, rule->name);
          return FALSE;
        }
      if (rule->action == MI_RULE_RISK && !check_risk (rule, accept, error))
        return FALSE;
      if (rule->action == MI_RULE_MIN_BATTERY)
        *min_battery_mv = MAX (*min_battery_mv, rule->number);
      if (rule->action == MI_RULE_NOTE && notes != NULL)
        g_ptr_array_add (notes, g_strdup (rule->text));
    }
  return TRUE;
}

gboolean
mitherm_plan_check_order (MiPlan *plan, GError **error)
{
  for (guint i = 0; i < plan->hops->len; i++)
    {
      const MiPlanHop *hop = g_ptr_array_index (plan->hops, i);

      if (hop->refusal != MI_REFUSAL_MISSING_IMAGE)
        continue;
      g_set_error (
          error, MITHERM_ERROR, MITHERM_ERROR_UNSUPPORTED,
          "It cannot go from version %s to %s at once: %s. Give both images in one update.",
          hop->from != NULL ? hop->from : "unknown", hop->to != NULL ? hop->to : "unknown",
          (const char *) g_ptr_array_index (hop->reasons, hop->reasons->len - 1));
      return FALSE;
    }
  return TRUE;
}

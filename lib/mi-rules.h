/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "mi-models.h"

G_BEGIN_DECLS

/*
 * Incidents of the field as data (rules.d/NAME.conf), and the planner that applies them
 * (docs/rules.md). Loading reads files; matching and planning are pure.
 */
typedef struct _MiRules MiRules;

typedef enum
{
  MI_RULE_REFUSE,
  MI_RULE_VIA,         /* @argument: the version that must be installed first */
  MI_RULE_RISK,        /* @argument: the risk that the user must name */
  MI_RULE_MIN_BATTERY, /* @number: mV */
  MI_RULE_NOTE,
} MiRuleAction;

typedef struct
{
  char *name;
  MiRuleAction action;
  char *argument; /* (nullable) */
  guint number;
  char *text;
  char *source; /* (nullable): where the incident is told */
} MiRule;

/* As mi_models_load(), for rules.d/. A rule that is not wholly understood is skipped and told. */
MiRules *mi_rules_load (const char *data_dir, const char *conf_dir, GPtrArray **problems);
MiRules *mi_rules_new (void);
void mi_rules_free (MiRules *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (MiRules, mi_rules_free)
void mi_rules_add_key_file (MiRules *self, GKeyFile *file, const char *origin, GPtrArray *problems);

/* One update that is asked about; what is not known is NULL or 0. */
typedef struct
{
  const char *model;
  const char *hardware;
  const char *from;      /* running version */
  MiImageKind from_kind; /* %MI_IMAGE_STOCK or a custom kind; %MI_IMAGE_UNKNOWN: told by @from */
  const char *to;        /* version of the image */
  MiImageKind to_kind;   /* body kind of the image */
  gsize size;            /* bytes of the upload */
} MiRuleQuery;

/**
 * mi_rules_match:
 *
 * The first rule that matches of each kind of action (of each risk), in the order of the files.
 *
 * Returns: (transfer container) (element-type MiRule)
 */
GPtrArray *mi_rules_match (MiRules *self, const MiRuleQuery *query);

typedef enum
{
  MI_REFUSAL_NONE,
  MI_REFUSAL_BAD_IMAGE,      /* not a sound image: mi_image_check() */
  MI_REFUSAL_WRONG_HARDWARE, /* does not fit, or cannot be told: overridden by "wrong-hardware" */
  MI_REFUSAL_TOO_LARGE,
  MI_REFUSAL_NO_TRANSPORT,  /* the model cannot be updated over the air */
  MI_REFUSAL_MISSING_IMAGE, /* another image must be installed first and is not among them */
  MI_REFUSAL_RULE,          /* a refuse rule */
} MiRefusal;

/* "none", "bad-image", "wrong-hardware", ... */
const char *mi_refusal_to_string (MiRefusal refusal);

/* One step of a plan. */
typedef struct
{
  guint image;           /* index into the images given */
  char *from;            /* (nullable): version before */
  char *to;              /* (nullable): version after */
  const char *transport; /* "telink", "telink-extended", "mible"; (nullable) */
  guint32 size;          /* bytes sent: blocks * 16 */
  guint32 limit;         /* bytes, 0: unknown */
  MiFit fit;
  MiSigned signed_state;   /* what the firmware before demands */
  gboolean device_decides; /* the image may be rejected by the device: only the read-back counts */
  guint min_battery;       /* mV */
  MiRefusal refusal;
  GPtrArray *risks;   /* (element-type utf8): names that must be accepted */
  GPtrArray *reasons; /* (element-type utf8): for people, in order */
} MiPlanHop;

typedef struct
{
  GPtrArray *hops; /* (element-type MiPlanHop) */
} MiPlan;

/* What is planned for. */
typedef struct
{
  const MiModel *model;
  const char *hardware;
  const char *running;
  gboolean envelope;  /* an envelope goes around the last image */
  const char *expect; /* (nullable): version expected of the last image (option expect-version) */
} MiPlanDevice;

/**
 * mi_plan_new:
 * @images: (element-type MiImage): in the order wanted; an image that a `via` rule asks for is
 *   taken out of turn
 *
 * A hop with a @refusal other than %MI_REFUSAL_NONE is not to be run (a wrong-hardware one only
 * with that risk named); a hop with risks only with all of them named.
 */
MiPlan *mi_plan_new (MiModels *models, MiRules *rules, const MiPlanDevice *device,
                     GPtrArray *images);
void mi_plan_free (MiPlan *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (MiPlan, mi_plan_free)

/* (transfer floating): aa{sv}, as Manager1.Plan answers it */
GVariant *mi_plan_to_variant (MiPlan *self);

G_END_DECLS
